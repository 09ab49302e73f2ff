"""What an engine is: one frozen model, and what can be done with it. Concrete ones live in `engines/`.

Axes: L layer, H KV head, N virtual position, D head dimension.

This file reaches no torch: rooms that only serve or account import it freely. An engine says what it
can do by the protocols that it meets; callers ask with `isinstance`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from foreword.prefix.header import Fingerprint, Geometry, PromptFormat
from foreword.types import Completion, Delta, Message, Sampling

if TYPE_CHECKING:
    from torch import Tensor

    from foreword.prefix.artifact import Prefix
    from foreword.prefix.side_signal import SideSignal

Conversation = Sequence[Message]
Progress = Callable[[int], None]
"""Called with the number of items just finished."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One prompt and the token sequences that may follow it, each judged on its own.

    The prompt is computed once however many targets follow it.
    """

    prompt: tuple[int, ...]
    targets: tuple[tuple[int, ...], ...]

    @property
    def fed_tokens(self) -> int:
        """Tokens that the model is fed: the last token of a target is only predicted."""
        return len(self.prompt) + sum(max(len(target) - 1, 0) for target in self.targets)


@runtime_checkable
class Engine(Protocol):
    """A loaded model."""

    @property
    def name(self) -> str:
        """The name it was loaded by."""
        ...

    @property
    def window(self) -> int:
        """Positions the model can attend, prefix included."""
        ...


@runtime_checkable
class Generates(Engine, Protocol):
    """Answers conversations."""

    def generate(
        self,
        conversations: Sequence[Conversation],
        *,
        prefix: Prefix | None = None,
        sampling: Sampling = ...,
        progress: Progress | None = None,
    ) -> list[Completion]:
        """One answer per conversation, in order."""
        ...

    def stream(self, conversation: Conversation, *, prefix: Prefix | None = None, sampling: Sampling = ...) -> Iterator[str]:
        """The answer to one conversation, piece by piece."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One answer wanted from an engine that serves.

    Attributes:
        conversation: its last turn is the user's; rendered through the chat template as the prefix's prompt format asks.
        text: in place of a conversation, a plain text to go on from.
        prefix: the files of the prefixes to stand in front, composed in this order where there are several; empty for none.
    """

    conversation: tuple[Message, ...] = ()
    text: str | None = None
    prefix: tuple[Path, ...] = ()
    sampling: Sampling = field(default_factory=Sampling)


Deliver = Callable[[Delta], None]
"""Takes the pieces of one answer, in the engine's own thread; it must neither block nor raise."""


class Ticket(Protocol):
    """One request under way."""

    @property
    def prompt_tokens(self) -> int:
        """Tokens of the rendered prompt, the prefix not counted."""
        ...

    def cancel(self) -> None:
        """Gives the request up; its slot is free within one step, and a last piece says `cancelled`. Safe from any thread, at any time."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What a serving engine is doing.

    Attributes:
        running: requests that are being computed.
        waiting: requests that wait for a slot.
        resident_prefixes, resident_bytes: prefixes held ready in memory.
        prompt_tokens, completion_tokens: computed since the start.
        steps: forward passes since the start.
        prefix_hits, prefix_misses: requests whose prefix was resident, or had to be read from its file.
    """

    running: int
    waiting: int
    resident_prefixes: int
    resident_bytes: int
    prompt_tokens: int
    completion_tokens: int
    steps: int
    prefix_hits: int
    prefix_misses: int


@runtime_checkable
class Serves(Engine, Protocol):
    """Answers many requests at once, each behind a prefix of its own."""

    def submit(self, request: Request, deliver: Deliver) -> Ticket:
        """Takes a request on and returns at once. Every request accepted ends with exactly one piece that has a `finish_reason`.

        Raises:
            Overloaded: too many wait already.
            WindowError: prefix, prompt and answer do not fit the window.
            PrefixFileError, PrefixMismatch: the prefix is not sound, or was made for another model.
            ConstraintError: the constraint cannot be read.
            ConfigError: a sampling setting from which nothing can be drawn.
        """
        ...

    def keep(self, prefix: tuple[Path, ...], *, pinned: bool = False) -> None:
        """Reads a prefix (or a composition) into memory before it is asked for; a pinned one stays until let go. Raises as `submit`."""
        ...

    def let_go(self, prefix: tuple[Path, ...]) -> None:
        """Takes a prefix out of memory, pinned or not; requests under way keep theirs to their end."""
        ...

    def resident(self) -> tuple[tuple[Path, ...], ...]:
        """Prefixes in memory, the one used last first."""
        ...

    def load(self) -> Load:
        """What the engine is doing now."""
        ...

    def close(self, *, drain_seconds: float = 0.0) -> None:
        """Takes no more requests, gives those under way `drain_seconds` to end, and cancels the rest."""
        ...


@runtime_checkable
class TakesPrefix(Engine, Protocol):
    """Puts a prefix before the prompt, and makes exact ones from tokens."""

    @property
    def fingerprint(self) -> Fingerprint:
        """What identifies the model, tokenizer and chat template."""
        ...

    @property
    def geometry(self) -> Geometry:
        """Shape of a position's keys and values."""
        ...

    def check(self, prefix: Prefix) -> None:
        """Raises `PrefixMismatch` when the prefix was made for another model."""
        ...

    def encode(self, text: str) -> tuple[int, ...]:
        """Token ids of a plain text; special tokens that appear in it stay plain text."""
        ...

    def render(self, conversation: Conversation, *, prompt_format: PromptFormat = "full") -> tuple[int, ...]:
        """Token ids of a conversation up to where the answer starts, through the chat template."""
        ...

    def read(self, token_ids: Sequence[int], *, behind: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, Tensor]:
        """Exact `key_LHND`, `value_LHND` of a token sequence at positions 0..N-1, keys after rotary encoding.

        Args:
            behind: keys and values that stand before the tokens; what comes back are the tokens' own, at the positions that follow.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What some tokens asked of the prefix before them, in every layer; the queries of all heads that share a KV head stand together (M).

    Attributes:
        query_LHMD: queries after rotary encoding and times the model's scale, float32, so that their products with keys are scores.
        beside_LHM: log of the softmax weight (before it is normalised) that falls beside the prefix: on the tokens themselves.
    """

    query_LHMD: Tensor
    beside_LHM: Tensor


@runtime_checkable
class Scores(Engine, Protocol):
    """Says how probable given words are. Plain numbers, so that rooms without tensors can ask."""

    def encode(self, text: str) -> tuple[int, ...]:
        """As `TakesPrefix.encode`."""
        ...

    def render(self, conversation: Conversation, *, prompt_format: PromptFormat = "full") -> tuple[int, ...]:
        """As `TakesPrefix.render`."""
        ...

    def answer_ids(self, text: str) -> tuple[int, ...]:
        """As `Differentiable.answer_ids`."""
        ...

    def log_probs(
        self, rows: Sequence[Row], *, after: Sequence[int] = (), progress: Progress | None = None
    ) -> list[tuple[tuple[float, ...], ...]]:
        """Log-probability (natural) of every token of every target, by row and target.

        Args:
            after: tokens that stand before each row's prompt; computed once for all rows.

        Raises:
            WindowError: a row does not fit the window, or has no prompt.
        """
        ...


@runtime_checkable
class Traceable(TakesPrefix, Protocol):
    """Shows what happens inside."""

    @property
    def reach(self) -> tuple[int | None, ...]:
        """For each layer, how many positions back a token sees, itself counted; None for all."""
        ...

    def asked(self, token_ids: Sequence[int], key_LHND: Tensor, value_LHND: Tensor, *, kept: Sequence[int]) -> Asked:
        """What the tokens in the places `kept` ask when `token_ids` stand behind a prefix.

        Raises:
            ModelError: the model caps its scores (Gemma 2), so that a score is more than a product.
            WindowError: prefix and tokens do not fit the window.
        """
        ...


@runtime_checkable
class ReadsSeveral(TakesPrefix, Protocol):
    """Reads several token sequences at once."""

    def read_several(
        self, sequences: Sequence[Sequence[int]], *, behind: tuple[Tensor, Tensor] | None = None
    ) -> list[tuple[Tensor, Tensor]]:
        """As `read`, for each of several sequences that do not see each other; each must have at least one token."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Shares:
    """What a side signal would get if it were merged with the prompt's own attention in one softmax, by layer and query head (Q).

    Attributes:
        share_LQ: its mean share of attention, float32.
        fitted_LQ: the gate with which adding it comes nearest to merging it (least squares over the tokens' outputs), float32.
    """

    share_LQ: Tensor
    fitted_LQ: Tensor


@runtime_checkable
class TakesSideSignal(TakesPrefix, Protocol):
    """Consults keys and values beside the prompt's own attention; see `foreword.prefix.side_signal`.

    All raise `PrefixMismatch` when the side signal was made for another model, and `ModelError` when the model cannot consult one.
    """

    @property
    def query_heads(self) -> int:
        """How many each layer has."""
        ...

    def target_log_probs_beside(self, rows: Sequence[Row], side: SideSignal, *, by_share: bool = False) -> Tensor:
        """As `Differentiable.target_log_probs`; gradients flow to the gate where it requires them.

        Args:
            by_share: merge the two as one softmax over both would, with the gate added to the log of the side signal's part. With a gate
                of zero that is ordinary attention to a prefix: the reference.
        """
        ...

    def shares_beside(self, rows: Sequence[Row], side: SideSignal) -> Shares:
        """What merging by share gives the side signal, its gate apart, over all tokens of the rows."""
        ...

    def generate_beside(
        self,
        conversations: Sequence[Conversation],
        side: SideSignal,
        *,
        sampling: Sampling = ...,
        progress: Progress | None = None,
    ) -> list[Completion]:
        """One answer per conversation, in order; each is rendered as it stands alone."""
        ...


@runtime_checkable
class Differentiable(TakesPrefix, Protocol):
    """Gives the log-probability of targets as a function of a prefix's keys and values."""

    @property
    def module(self) -> Any:
        """The underlying torch module, frozen."""
        ...

    @property
    def tokenizer(self) -> Any:
        """The underlying tokenizer."""
        ...

    def render_context(self, messages: Sequence[Message]) -> tuple[int, ...]:
        """Token ids of the start of a conversation, to stand in a prefix of format `continuation`."""
        ...

    def answer_ids(self, text: str) -> tuple[int, ...]:
        """Token ids of an answer with its end, as the model would write it."""
        ...

    def batches(self, rows: Sequence[Row], *, most_tokens: int) -> list[list[int]]:
        """Row indices in groups of like length whose padded size stays within `most_tokens` (a single row may exceed it)."""
        ...

    def prefix_attention(self, rows: Sequence[Row], key_LHND: Tensor, value_LHND: Tensor) -> Tensor:
        """Attention that the rows' tokens pay to each prefix position, summed over tokens and query heads: L H N."""
        ...

    def target_log_probs(
        self,
        rows: Sequence[Row],
        key_LHND: Tensor | None = None,
        value_LHND: Tensor | None = None,
        *,
        prefix_of_row: Sequence[int] | None = None,
    ) -> Tensor:
        """Log-probability of every target token, flat: rows in order, targets in order, tokens in order.

        Gradients flow to the prefix tensors where they require them; never to a weight.

        Args:
            prefix_of_row: for each row, which of several prefixes of equal length stands before it; the tensors then have
                a first axis of their own for the prefixes, Q L H N D.
        """
        ...

    def likeliest(
        self, rows: Sequence[Row], key_LHND: Tensor | None = None, value_LHND: Tensor | None = None, *, count: int
    ) -> tuple[Tensor, Tensor]:
        """The `count` most probable tokens at each target position and their log-probabilities, both T C, targets in flat order."""
        ...

    def log_probs_of(
        self, rows: Sequence[Row], token_ids_TC: Tensor, key_LHND: Tensor | None = None, value_LHND: Tensor | None = None
    ) -> Tensor:
        """Log-probabilities of given tokens at each target position, T C; gradients flow as in `target_log_probs`."""
        ...
