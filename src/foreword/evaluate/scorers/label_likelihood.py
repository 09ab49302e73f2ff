"""Label likelihood: accuracy of the label that the model finds most likely after the prompt, without any generation."""

from __future__ import annotations

from foreword.evaluate.scorer import Outcome, Score, mean_score
from foreword.evaluate.scorers._labels import label_log_probs, likelihood_hits

NEEDS = ("label_log_probs",)


def score(outcome: Outcome) -> Score:
    """0..1; each row is 0 or 1.

    Raises:
        EvaluationError: the outcome has no label log-probabilities, or they are not numbers.
    """
    return mean_score(likelihood_hits(outcome, label_log_probs(outcome, scorer="label-likelihood")))
