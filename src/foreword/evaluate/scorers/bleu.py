"""BLEU (Papineni et al. 2002) as sacrebleu computes it: 13a tokenisation, case kept, exponential smoothing of empty orders.

Counts are taken row by row, so each row may have its own number of references, and summed before the score is computed, which
gives the very figure of `sacrebleu.corpus_bleu`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from foreword.evaluate.scorer import Outcome, Score, corpus_score, require

JUDGES_ROWS = False


def score(outcome: Outcome) -> Score:
    """0..100 over the corpus.

    Raises:
        EvaluationError: sacrebleu is not installed.
    """
    metrics: Any = require("sacrebleu.metrics", package="sacrebleu", scorer="bleu")
    # Effective order only decides how one row's own score is computed, which is not used here; without it sacrebleu warns once a row.
    row_metric = metrics.BLEU(effective_order=True)
    order = row_metric.max_ngram_order
    counted = [row_metric.sentence_score(answer, list(refs)) for answer, refs in zip(outcome.answers, outcome.references, strict=True)]
    counts = np.array([[row.sys_len, row.ref_len, *row.counts, *row.totals] for row in counted])

    def statistic(rows: np.ndarray) -> float:
        answer_length, reference_length, *ngrams = counts[rows].sum(axis=0).tolist()
        total = metrics.BLEU.compute_bleu(
            correct=ngrams[:order],
            total=ngrams[order:],
            sys_len=answer_length,
            ref_len=reference_length,
            smooth_method="exp",
        )
        return float(total.score)

    return corpus_score(statistic, len(outcome))
