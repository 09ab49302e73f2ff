"""What a long-term memory holds, and how well a fact fits a question.

Recency, importance and relevance are added as Park et al. 2023 ("Generative Agents", section 4.1) do, each between 0 and 1. They are not
stretched over the facts at hand as there, so that a question which nothing fits recalls nothing.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

DAY = 86_400.0
MOST_CHARACTERS = 4_000
_WORD = re.compile(r"\w+")
_EMPTY_WORDS = frozenset(
    (
        *(
            "the",
            "and",
            "for",
            "but",
            "not",
            "with",
            "from",
            "into",
            "that",
            "this",
            "these",
            "those",
            "you",
            "your",
            "its",
            "our",
            "their",
        ),
        *("are", "was", "were", "have", "has", "had", "does", "did", "what", "which", "who", "whom", "how"),
    )
)
_LEAST_LETTERS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """Where a fact comes from.

    Attributes:
        run: which piece of work.
        span: which step of its trace.
        source: what said it: `user`, `model`, `tool:sql`, ...
    """

    run: str = ""
    span: int = 0
    source: str = "user"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """Something remembered.

    Attributes:
        importance: 0 to 1.
        made, used: when it was written, and when it was written or recalled last, in seconds since 1970.
        recalls: how often it was recalled.
    """

    id: int
    text: str
    importance: float
    provenance: Provenance
    made: float
    used: float
    recalls: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Recalled:
    """A fact and how well it fits what was asked; all figures are between 0 and 1."""

    fact: Fact
    score: float
    relevance: float
    recency: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Decay:
    """How facts fade.

    Attributes:
        half_life: seconds in which a fact that is not recalled loses half of its recency.
        reinforcement: each recall makes its half-life longer by this share.
        most_recalls: that count for it.
    """

    half_life: float = 7 * DAY
    reinforcement: float = 0.5
    most_recalls: int = 20

    def recency(self, fact: Fact, now: float) -> float:
        """1 for a fact that was just written or recalled, and half of it after each half-life."""
        half_life = self.half_life * (1 + self.reinforcement * min(fact.recalls, self.most_recalls))
        return 0.5 ** (max(0.0, now - fact.used) / half_life)


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """What counts how much in a recall."""

    relevance: float = 1.0
    recency: float = 1.0
    importance: float = 1.0

    def score(self, *, relevance: float, recency: float, importance: float) -> float:
        """The weighted mean."""
        total = self.relevance + self.recency + self.importance
        return (self.relevance * relevance + self.recency * recency + self.importance * importance) / total


@dataclass(slots=True)
class Words:
    """Relevance by common words: the share of the question's words that a fact holds, rare ones counting more."""

    texts: Sequence[str]
    _bags: list[frozenset[str]] = field(init=False)
    _documents: Counter[str] = field(init=False)

    def __post_init__(self) -> None:
        self._bags = [words(text) for text in self.texts]
        self._documents = Counter(word for bag in self._bags for word in bag)

    def relevance(self, question: str) -> list[float]:
        """0 to 1 for each text."""
        asked = {word: self._weight(word) for word in words(question)}
        total = sum(asked.values())
        return [sum(weight for word, weight in asked.items() if word in bag) / total if total else 0.0 for bag in self._bags]

    def _weight(self, word: str) -> float:
        # Evener than the usual inverse document frequency, which tells nothing apart in a memory of three facts.
        return 1 + math.log(1 + len(self.texts) / (1 + self._documents[word]))


def words(text: str) -> frozenset[str]:
    """The words of a text that say something, case apart: short ones and the commonest English ones are left out, numbers stay."""
    found = _WORD.findall(text.casefold())
    return frozenset(word for word in found if word not in _EMPTY_WORDS and (len(word) >= _LEAST_LETTERS or any(map(str.isdigit, word))))
