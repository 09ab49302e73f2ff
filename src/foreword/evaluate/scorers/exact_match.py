"""Exact match: the answer is one of the references, letter for letter, once runs of white space count as one space."""

from __future__ import annotations

import numpy as np

from foreword.evaluate.scorer import Outcome, Score, mean_score


def score(outcome: Outcome) -> Score:
    """0..1; each row is 0 or 1. Case and punctuation count."""
    pairs = zip(outcome.answers, outcome.references, strict=True)
    return mean_score(np.array([_spaced(answer) in map(_spaced, references) for answer, references in pairs]))


def _spaced(text: str) -> str:
    return " ".join(text.split())
