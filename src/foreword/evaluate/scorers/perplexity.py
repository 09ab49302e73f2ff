"""Perplexity of the references: exp of the mean negative log-likelihood per token, over all tokens of all rows."""

from __future__ import annotations

import numpy as np

from foreword.errors import EvaluationError
from foreword.evaluate.scorer import Outcome, Score

NEEDS = ("target_log_probs",)
JUDGES_ROWS = False  # lower is better, so no bar can be reached from below


def score(outcome: Outcome) -> Score:
    """1 or more, lower is better. A row's own number is the perplexity of its tokens.

    Raises:
        EvaluationError: the outcome has no target log-probabilities, a row has no token, or one is not a number.
    """
    if outcome.target_log_probs is None:
        raise EvaluationError(
            "The scorer `perplexity` needs the log-probability of every reference token, and this outcome has none. "
            "Use an engine that gives target log-probabilities."
        )
    tokens = np.array([len(row) for row in outcome.target_log_probs])
    totals = np.array([np.sum(row, dtype=np.float64) for row in outcome.target_log_probs])
    bad = np.flatnonzero((tokens == 0) | np.isnan(totals))
    if bad.size:
        raise EvaluationError(f"Example {bad[0]} has no reference token, or a log-probability that is not a number ({bad.size} such rows).")

    def statistic(rows: np.ndarray) -> float:
        return float(_exp(-totals[rows].sum() / tokens[rows].sum()))

    return Score(
        value=statistic(np.arange(len(outcome))),
        per_example=_exp(-totals / tokens),
        higher_is_better=False,
        statistic=statistic,
    )


def _exp(nats: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):  # an impossible token makes the perplexity infinite, which is the right answer
        return np.exp(nats)
