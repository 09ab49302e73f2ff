"""What speaks for and against one cached question being the asked one: how near their vectors are, and what their words have in common.

Axes: F feature.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from foreword.gateway.cache.wording import Wording, differences

FEATURES = (
    "similarity",
    "distance",
    "shared",
    "shared_content",
    "missing",
    "added",
    "heaviest_missing",
    "heaviest_added",
    "numbers",
    "negation",
    "question",
    "length",
    "shortest",
    "same_content",
    "content",
    "order",
    "pairs",
    "first",
    "names",
)
"""What a pair is looked at by, in the order of the vector."""
CENTRE = np.array([0.75, -1.65, 0.4, 0.45, 14.0, 14.0, 6.0, 6.0, 0.1, 0.1, 0.6, 3.0, 9.0, 0.05, 3.0, 0.1, 0.2, 0.6, 0.3])
SPREAD = np.array([0.15, 0.9, 0.2, 0.25, 14.0, 14.0, 3.0, 3.0, 0.3, 0.3, 0.5, 4.0, 4.0, 0.25, 1.6, 0.25, 0.2, 0.5, 0.45])
"""About where the features of near questions lie, and how far apart, so that one prior suits all."""
ASSUMED = {
    "similarity": 1.2,
    "distance": -0.5,
    "shared": 0.2,
    "shared_content": 0.5,
    "missing": -0.2,
    "added": -0.2,
    "numbers": -0.4,
    "negation": -0.5,
    "question": 0.2,
    "length": -0.2,
    "same_content": 0.2,
    "pairs": 0.2,
    "names": -0.3,
}
"""What a step of one spread in a feature is taken to add to the logit before anything is seen; features left out add nothing."""
ASSUMED_LOGIT = -1.5
"""Of a question whose features lie in the centre: the same about one time in five."""


class Weights:
    """How much each word says: the rarer among the cached questions, the more."""

    def __init__(self) -> None:
        self._texts = 0
        self._holding: Counter[str] = Counter()

    def add(self, stems: Iterable[str]) -> None:
        """One more cached question has these words."""
        self._texts += 1
        self._holding.update(set(stems))

    def remove(self, stems: Iterable[str]) -> None:
        """A cached question with these words is gone."""
        self._texts -= 1
        for stem in set(stems):
            self._holding[stem] -= 1
            if self._holding[stem] <= 0:
                del self._holding[stem]

    def of(self, stem: str) -> float:
        """Between 0 and a dozen or so: the logarithm of how rare the word is."""
        return math.log((self._texts + 1) / (self._holding.get(stem, 0) + 1)) + 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What is known of an asked and a cached question.

    Attributes:
        similarity: cosine of their vectors.
        features: F, by `FEATURES`.
        differences: what turns the meaning round, from `wording.differences`; empty where nothing does.
    """

    similarity: float
    features: np.ndarray
    differences: tuple[str, ...]


def evidence(similarity: float, asked: Wording, cached: Wording, weights: Weights) -> Evidence:
    """What speaks for and against."""
    differing = differences(asked, cached)
    stems, others = set(asked.stems), set(cached.stems)
    content, their_content = set(asked.content), set(cached.content)
    shared, missing, added = (sum(map(weights.of, words)) for words in (stems & others, others - stems, stems - others))
    lost = [weights.of(stem) for stem in their_content - content]
    new = [weights.of(stem) for stem in content - their_content]
    kept = sum(map(weights.of, content & their_content))
    features = (
        similarity,
        math.log(max(1 - similarity, 5e-4)),
        shared / (shared + missing + added + 1e-9),
        kept / (kept + sum(lost) + sum(new) + 1e-9),
        sum(lost),
        sum(new),
        max(lost, default=0.0),
        max(new, default=0.0),
        float("numbers" in differing),
        float("negation" in differing),
        float(asked.question == cached.question),
        float(abs(len(asked.stems) - len(cached.stems))),
        float(min(len(asked.stems), len(cached.stems))),
        float(content == their_content),
        float(len(content & their_content)),
        _inverted(asked.content, cached.content),
        _overlap(set(pairwise(asked.stems)), set(pairwise(cached.stems))),
        float(asked.first == cached.first),
        float("names" in differing),
    )
    return Evidence(similarity=similarity, features=np.array(features), differences=differing)


def _inverted(one: tuple[str, ...], other: tuple[str, ...]) -> float:
    """Of neighbouring words that both have, the share that the other has in the opposite order."""
    places = [other.index(word) for word in dict.fromkeys(one) if word in other]
    if len(places) < 2:
        return 0.0
    return sum(before > after for before, after in pairwise(places)) / (len(places) - 1)


def _overlap(one: set[tuple[str, str]], other: set[tuple[str, str]]) -> float:
    return len(one & other) / (len(one | other) or 1)
