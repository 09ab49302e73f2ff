"""The nouns every room shares: messages, examples, sampling, usage, completions. No torch here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Role = Literal["system", "user", "assistant"]
FinishReason = Literal["stop", "length"]


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
class Sampling:
    """How an answer is drawn. Temperature 0 is greedy."""

    max_new_tokens: int = 128
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int = 0
    stop: tuple[str, ...] = ()


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
