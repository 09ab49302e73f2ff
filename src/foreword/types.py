"""The nouns every room shares: messages, examples, sampling, usage, completions. No torch here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Role = Literal["system", "user", "assistant"]
FinishReason = Literal["stop", "length", "cancelled", "error"]
"""`cancelled` and `error` are given by engines that serve: the caller gave up, or the engine failed."""
ConstraintKind = Literal["json-schema", "json-object", "regex", "choice"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One turn of a conversation."""

    role: Role
    content: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One row of data: what the model is given and what it should answer.

    Attributes:
        messages: the conversation before the answer; its last turn is the user's.
        completions: the wanted answers; several when one input has several references.
        line: 1-based line (or row) in the file it came from, 0 when made in memory.
        user: whose row it is, where the data has a user column.
    """

    messages: tuple[Message, ...]
    completions: tuple[str, ...]
    line: int = 0
    user: str | None = None

    @property
    def prompt(self) -> str:
        """The last user turn."""
        return self.messages[-1].content


@dataclass(frozen=True, slots=True, kw_only=True)
class Constraint:
    """What an answer must look like.

    Attributes:
        value: a JSON schema as text, a regular expression, or a JSON list of texts of which one is chosen; unused for `json-object`.
    """

    kind: ConstraintKind
    value: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How an answer is drawn. Temperature 0 is greedy.

    Attributes:
        max_new_tokens: tokens at most.
        top_p: the fewest tokens whose probability reaches this are drawn from.
        top_k: the most probable tokens that are drawn from; 0 for all.
        min_p: tokens less probable than this share of the most probable one are left out.
        repetition_penalty: logits of tokens in the prompt or the answer are divided by it where positive, multiplied where negative.
        presence_penalty: taken off the logit of every token that the answer holds already.
        frequency_penalty: taken off once for each time that it does.
        logit_bias: (token id, what is added to its logit).
        logprobs: report each token's log-probability, and those of this many of the most probable ones; None reports none.
        seed: equal seeds give equal draws, whatever else the engine computes at the time.
        stop: texts at whose first appearance the answer ends; they are not part of it.
        ignore_end: go on after the model ends its answer, up to `max_new_tokens`; for measuring.
        constraint: what the answer must look like.
    """

    max_new_tokens: int = 128
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: tuple[tuple[int, float], ...] = ()
    logprobs: int | None = None
    seed: int = 0
    stop: tuple[str, ...] = ()
    ignore_end: bool = False
    constraint: Constraint | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenLogprob:
    """A token of an answer and how probable it was, after penalties and constraint, before temperature.

    Attributes:
        text: what the token alone reads as; bytes that are no whole character read as U+FFFD.
        top: the most probable tokens at its place, most probable first.
    """

    token_id: int
    text: str
    logprob: float
    top: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What one request took, in tokens and positions."""

    prompt_tokens: int
    completion_tokens: int
    prefix_positions: int = 0

    @property
    def prompt_positions(self) -> int:
        """Positions attended before the first generated token: prefix and prompt."""
        return self.prefix_positions + self.prompt_tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """One answer.

    Attributes:
        seconds: wall time of the batch this answer was made in, divided by the batch's rows.
    """

    text: str
    token_ids: tuple[int, ...]
    usage: Usage
    finish_reason: FinishReason
    seconds: float
    logprobs: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Delta:
    """A piece of an answer in the making.

    Attributes:
        text: what is settled since the last piece; later tokens neither change it nor take it back.
        token_ids: tokens since the last piece; text may lag behind them.
        finish_reason: set on the last piece.
        usage: set on the last piece.
    """

    text: str
    token_ids: tuple[int, ...] = ()
    logprobs: tuple[TokenLogprob, ...] = ()
    finish_reason: FinishReason | None = None
    usage: Usage | None = None
