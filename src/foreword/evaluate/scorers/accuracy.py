"""Accuracy: the share of rows whose answer is the wanted label, after stripping white space and case."""

from __future__ import annotations

from foreword.evaluate.scorer import Outcome, Score, mean_score
from foreword.evaluate.scorers._labels import hits


def score(outcome: Outcome) -> Score:
    """0..1; each row is 0 or 1. An answer that is no label at all is wrong."""
    return mean_score(hits(outcome))
