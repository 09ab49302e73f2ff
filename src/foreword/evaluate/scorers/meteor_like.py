"""METEOR after Banerjee & Lavie (2005, "METEOR: An Automatic Metric for MT Evaluation ...", §2), without WordNet.

This is not the official Java program: there is no synonym stage, no paraphrase table and no tuned weights, so its figures are
not comparable with published METEOR. Hence the name.

Words are aligned one to one, first those that are equal, then those with equal Porter stems. With m matched words, precision P
and recall R, the score is 10·P·R / (R + 9·P) · (1 - ½·(chunks / m)³), chunks being the runs that stand together in both texts.
Where several alignments match equally many words, the paper takes the one with the fewest crossings; here the longest common
runs are matched first, which aims at fewest chunks directly. The best reference counts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np

from foreword.evaluate.scorer import Outcome, Score, mean_score, require
from foreword.evaluate.scorers._words import plain_words

Stem = Callable[[str], str]


def score(outcome: Outcome) -> Score:
    """0..1, the mean over rows.

    Raises:
        EvaluationError: nltk, whose Porter stemmer is used, is not installed.
    """
    porter: Any = require("nltk.stem.porter", package="nltk", scorer="meteor-like")
    stem: Stem = lru_cache(maxsize=None)(porter.PorterStemmer().stem)
    best: list[float] = []
    for answer, references in zip(outcome.answers, outcome.references, strict=True):
        ours = plain_words(answer)
        best.append(max(_against(ours, plain_words(reference), stem) for reference in references))
    return mean_score(np.array(best))


def _against(answer: Sequence[str], reference: Sequence[str], stem: Stem) -> float:
    pairs = _align(answer, reference, stem)
    if not pairs:
        return 0.0
    precision, recall = len(pairs) / len(answer), len(pairs) / len(reference)
    f_mean = 10 * precision * recall / (recall + 9 * precision)
    return f_mean * (1 - 0.5 * (_chunks(pairs) / len(pairs)) ** 3)


def _align(answer: Sequence[str], reference: Sequence[str], stem: Stem) -> list[tuple[int, int]]:
    """Pairs of positions (answer, reference), in the answer's order."""
    pairs: dict[int, int] = {}
    _match_runs(answer, reference, pairs)
    _match_runs([stem(word) for word in answer], [stem(word) for word in reference], pairs)
    return sorted(pairs.items())


def _match_runs(answer: Sequence[str], reference: Sequence[str], pairs: dict[int, int]) -> None:
    """Adds to `pairs` the longest common run of words that are still free, again and again until none is left.

    Equality is transitive, so whatever the order of the runs, as many words are matched as can be.
    """
    taken = set(pairs.values())
    while True:
        length, ours, theirs = _longest_free_run(answer, reference, pairs, taken)
        if not length:
            return
        for offset in range(length):
            pairs[ours + offset] = theirs + offset
            taken.add(theirs + offset)


def _longest_free_run(answer: Sequence[str], reference: Sequence[str], pairs: dict[int, int], taken: set[int]) -> tuple[int, int, int]:
    """Length and starts of the longest common run over free positions; the earliest one among equals. Length 0: none."""
    best = (0, 0, 0)
    above = [0] * (len(reference) + 1)  # length of the run that ends at the answer's previous word and each reference word
    for row, word in enumerate(answer):
        current = [0] * (len(reference) + 1)
        if row not in pairs:
            for column, other in enumerate(reference):
                if word == other and column not in taken:
                    length = current[column + 1] = above[column] + 1
                    if length > best[0]:
                        best = (length, row - length + 1, column - length + 1)
        above = current
    return best


def _chunks(pairs: Sequence[tuple[int, int]]) -> int:
    """Runs of pairs that are neighbours in both texts."""
    breaks = sum((ours + 1, theirs + 1) != after for (ours, theirs), after in pairwise(pairs))
    return breaks + 1
