"""What `check` finds, as plain values that print and serialise."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from foreword.data.dataset import Kind, Skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Lengths:
    """Order statistics of a length, in characters or tokens."""

    minimum: int
    median: int
    p95: int
    maximum: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Rows that belong together.

    Attributes:
        lines: where the rows stand.
        excerpt: the start of the first row's prompt.
        labels: the distinct labels among them, for classification.
    """

    lines: tuple[int, ...]
    excerpt: str
    labels: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Leak:
    """A dev row whose prompt also stands in the training data, word for word (`similarity` 1 and `exact`) or nearly."""

    dev_line: int
    train_line: int
    similarity: float
    exact: bool
    excerpt: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TooLong:
    """A row whose prompt and longest completion exceed the window, in tokens without the chat template's own."""

    line: int
    tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """Findings about one file.

    Attributes:
        prompt_chars: of all turns before the answer together.
        completion_chars: of each completion.
        prompt_tokens, completion_tokens: the same in tokens, None without a token counter.
        labels: rows per label, most frequent first; None for generation.
        repeated_prompts: prompts that stand in several rows (several references of one input, for generation).
        duplicates: rows that are the same in prompt, completions and user.
        conflicts: the same prompt under different labels.
        near_duplicates: different prompts with nearly the same words.
        too_long: rows over the window; empty without a token counter.
        nearly_empty: lines whose prompt has no letter or digit.
        padded: lines with blanks at the start or end of a completion.
    """

    path: str
    sha256: str
    kind: Kind
    rows: int
    completions: int
    with_user: int
    skipped: tuple[Skip, ...]
    prompt_chars: Lengths
    completion_chars: Lengths
    prompt_tokens: Lengths | None
    completion_tokens: Lengths | None
    labels: dict[str, int] | None
    repeated_prompts: int
    duplicates: tuple[Group, ...]
    conflicts: tuple[Group, ...]
    near_duplicates: tuple[Group, ...]
    too_long: tuple[TooLong, ...]
    nearly_empty: tuple[int, ...]
    padded: tuple[int, ...]

    @property
    def surplus_rows(self) -> int:
        """Rows that would go if each exact duplicate were kept once."""
        return sum(len(group.lines) - 1 for group in self.duplicates)


@dataclass(frozen=True, slots=True, kw_only=True)
class Warned:
    """Something to look at before tuning, and what to do about it."""

    code: str
    message: str
    advice: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DataReport:
    """Findings about the training data, the dev data, and the two together."""

    train: Side
    dev: Side | None
    leaks: tuple[Leak, ...]
    window: int | None
    warnings: tuple[Warned, ...]

    def as_dict(self) -> dict[str, Any]:
        """The report as values that JSON takes."""
        return asdict(self)
