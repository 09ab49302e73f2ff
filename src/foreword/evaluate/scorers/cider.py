"""CIDEr-D (Vedantam et al. 2015, "CIDEr: Consensus-based Image Description Evaluation", §3 and §6).

For each n = 1..4, answer and references are vectors of n-grams weighted by how often they occur times how rare they are (tf-idf,
where a document is one row with all its references). Their similarity is a cosine in which the answer's weights are clipped at
the reference's, times exp(-(difference in length)² / 2σ²) with σ = 6. The row's score is ten times the mean over n and references.

Words are lower-cased and punctuation is dropped, as in the authors' evaluation; nothing is stemmed there either, though the
paper's text says so. Over a single row every idf is log 1 = 0 and so is the score: it needs a corpus.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from foreword.evaluate.scorer import Outcome, Score, mean_score
from foreword.evaluate.scorers._words import NGram, ngram_counts, plain_words

ORDERS = range(1, 5)
SIGMA = 6.0
SCALE = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Vector:
    """A text as CIDEr sees it: for each order, weight of each n-gram and the vector's length; and its number of words."""

    weights: tuple[dict[NGram, float], ...]
    norms: tuple[float, ...]
    words: int


def score(outcome: Outcome) -> Score:
    """0..10, the mean over rows. How rare an n-gram is comes from all rows, also when rows are resampled."""
    answers = [plain_words(answer) for answer in outcome.answers]
    references = [[plain_words(text) for text in texts] for texts in outcome.references]
    rarity = _Rarity(references)
    rows = zip(answers, references, strict=True)
    return mean_score(np.array([_row(rarity.vector(answer), [rarity.vector(words) for words in texts]) for answer, texts in rows]))


class _Rarity:
    """Inverse document frequency over the rows' references."""

    def __init__(self, references: Sequence[Sequence[Sequence[str]]]) -> None:
        self._log_rows = math.log(len(references))
        self._rows_with: Counter[NGram] = Counter()
        for texts in references:
            self._rows_with.update({ngram for words in texts for order in ORDERS for ngram in ngram_counts(words, order)})

    def _idf(self, ngram: NGram) -> float:
        return self._log_rows - math.log(max(1, self._rows_with[ngram]))

    def vector(self, words: Sequence[str]) -> _Vector:
        weights = tuple({ngram: count * self._idf(ngram) for ngram, count in ngram_counts(words, order).items()} for order in ORDERS)
        return _Vector(weights=weights, norms=tuple(math.hypot(*row.values()) for row in weights), words=len(words))


def _row(answer: _Vector, references: Sequence[_Vector]) -> float:
    return SCALE * sum(_similarity(answer, reference) for reference in references) / len(references)


def _similarity(answer: _Vector, reference: _Vector) -> float:
    total = 0.0
    for ours, theirs, our_norm, their_norm in zip(answer.weights, reference.weights, answer.norms, reference.norms, strict=True):
        if our_norm and their_norm:
            clipped = sum(min(weight, theirs[ngram]) * theirs[ngram] for ngram, weight in ours.items() if ngram in theirs)
            total += clipped / (our_norm * their_norm)
    return total / len(ORDERS) * math.exp(-((answer.words - reference.words) ** 2) / (2 * SIGMA**2))
