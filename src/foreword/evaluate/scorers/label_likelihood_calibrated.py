"""Label likelihood after contextual calibration (Zhao et al. 2021, "Calibrate Before Use", §3).

A model prefers some labels whatever the input is. The paper measures this on a content-free input ("N/A") and applies
W = diag(p_cf)⁻¹, b = 0 to the label probabilities p, that is, it chooses the label with the largest p / p_cf. Normalising p over
the labels first, as the paper does, does not change which is largest.
"""

from __future__ import annotations

import numpy as np

from foreword.errors import EvaluationError
from foreword.evaluate.scorer import Outcome, Score, mean_score
from foreword.evaluate.scorers._labels import label_log_probs, likelihood_hits

NEEDS = ("label_log_probs", "prior_log_probs")


def score(outcome: Outcome) -> Score:
    """0..1; each row is 0 or 1.

    Raises:
        EvaluationError: the outcome lacks the log-probabilities or the content-free prior, or they are not numbers.
    """
    log_probs = label_log_probs(outcome, scorer="label-likelihood-calibrated")
    if outcome.prior_log_probs is None:
        raise EvaluationError(
            "The scorer `label-likelihood-calibrated` needs `prior_log_probs`, the label log-likelihoods after a content-free prompt. "
            "Compute them, or use `label-likelihood`."
        )
    prior = np.asarray(outcome.prior_log_probs, dtype=np.float64)
    if not np.isfinite(prior).all():
        raise EvaluationError(f"`prior_log_probs` must be finite numbers; got {prior.tolist()}.")
    return mean_score(likelihood_hits(outcome, log_probs - prior))
