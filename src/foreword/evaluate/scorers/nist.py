"""NIST (Doddington 2002, "Automatic Evaluation of Machine Translation Quality Using N-gram Co-Occurrence Statistics", §4).

Like BLEU, but a matched n-gram counts by how much it tells: info(w1..wn) = log2(count(w1..wn-1) / count(w1..wn)) over all
references, the empty n-gram counting once per word. The score is the sum over n = 1..5 of matched information per n-gram of the
answers, times exp(β·log²(min(answer length / mean reference length, 1))), with β such that the factor is ½ at a ratio of ⅔.

With several references per row, matches are clipped at the largest count in any one of them and lengths are averaged, as in
NIST's own `mteval-v13a`. Words are those of mteval, lower-cased, its default.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np

from foreword.evaluate.scorer import Outcome, Score, corpus_score
from foreword.evaluate.scorers._words import NGram, ngram_counts, words_13a

JUDGES_ROWS = False
ORDERS = range(1, 6)
BETA = math.log(0.5) / math.log(1.5) ** 2


def score(outcome: Outcome) -> Score:
    """0 upwards over the corpus; about 8 to 9 for good E2E systems.

    When rows are resampled, the information of an n-gram stays what it is over all rows: it is a property of the references,
    not of the contender.
    """
    answers = [words_13a(answer.lower()) for answer in outcome.answers]
    references = [[words_13a(text.lower()) for text in texts] for texts in outcome.references]
    information = _information(references)
    rows = [_row(answer, texts, information) for answer, texts in zip(answers, references, strict=True)]
    counts = np.array(rows)

    def statistic(chosen: np.ndarray) -> float:
        total = counts[chosen].sum(axis=0)
        answer_length, reference_length = total[0], total[1]
        matched, given = total[2 : 2 + len(ORDERS)], total[2 + len(ORDERS) :]
        precision = (matched / np.maximum(given, 1)).sum()
        return float(precision * _length_factor(answer_length, reference_length))

    return corpus_score(statistic, len(outcome))


def _information(references: Sequence[Sequence[Sequence[str]]]) -> dict[NGram, float]:
    """Bits that each n-gram of the references tells, given the words before its last."""
    counts: Counter[NGram] = Counter()
    for texts in references:
        for words in texts:
            counts[()] += len(words)
            for order in ORDERS:
                counts.update(ngram_counts(words, order))
    return {ngram: math.log2(counts[ngram[:-1]] / count) for ngram, count in counts.items() if ngram}


def _row(answer: Sequence[str], references: Sequence[Sequence[str]], information: dict[NGram, float]) -> list[float]:
    """Answer length, mean reference length, matched bits of each order, n-grams of each order."""
    matched: list[float] = []
    given: list[float] = []
    for order in ORDERS:
        ours = ngram_counts(answer, order)
        most: Counter[NGram] = Counter()
        for words in references:
            most |= ngram_counts(words, order)
        matched.append(sum(information[ngram] * count for ngram, count in (ours & most).items()))
        given.append(ours.total())
    return [len(answer), sum(map(len, references)) / len(references), *matched, *given]


def _length_factor(answer_length: float, reference_length: float) -> float:
    if answer_length == 0:
        return 0.0
    ratio = answer_length / reference_length if reference_length else 1.0
    return math.exp(BETA * math.log(min(ratio, 1.0)) ** 2)
