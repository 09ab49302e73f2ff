from __future__ import annotations

import numpy as np
import pytest

from foreword.errors import EvaluationError
from foreword.evaluate.scorers import label_likelihood, label_likelihood_calibrated


def test_a_bias_towards_one_label_is_taken_out(outcome) -> None:
    """The paper's case: the model says `positive` whatever it reads, only less surely when the text is negative."""
    made = outcome(
        ["", ""],
        ["positive", "negative"],
        labels=("positive", "negative"),
        label_log_probs=np.log(np.array([[0.9, 0.1], [0.6, 0.4]])),
        prior_log_probs=np.log(np.array([0.8, 0.2])),
    )
    assert label_likelihood.score(made).value == 0.5
    assert label_likelihood_calibrated.score(made).value == 1


def test_agrees_with_the_papers_matrix_form(outcome) -> None:
    rng = np.random.default_rng(0)
    log_probs, prior = rng.normal(-4, 2, (200, 4)), rng.normal(-4, 1, 4)
    wanted = rng.integers(0, 4, 200)
    labels = ("a", "b", "c", "d")
    made = outcome([""] * 200, [labels[w] for w in wanted], labels=labels, label_log_probs=log_probs, prior_log_probs=prior)
    p = np.exp(log_probs) / np.exp(log_probs).sum(1, keepdims=True)
    p_cf = np.exp(prior) / np.exp(prior).sum()
    calibrated = p @ np.linalg.inv(np.diag(p_cf)).T
    score = label_likelihood_calibrated.score(made)
    assert score.per_example is not None
    assert score.per_example.astype(bool).tolist() == (calibrated.argmax(1) == wanted).tolist()


def test_a_flat_prior_changes_nothing(outcome) -> None:
    log_probs = np.random.default_rng(1).normal(size=(50, 3))
    made = outcome([""] * 50, ["a"] * 50, labels=("a", "b", "c"), label_log_probs=log_probs, prior_log_probs=np.full(3, -2.5))
    assert label_likelihood_calibrated.score(made).value == label_likelihood.score(made).value


def test_needs_a_finite_prior(outcome) -> None:
    fields = {"labels": ("a", "b"), "label_log_probs": np.zeros((1, 2))}
    with pytest.raises(EvaluationError, match=r"needs `prior_log_probs`.*`label-likelihood`"):
        label_likelihood_calibrated.score(outcome([""], ["a"], **fields))
    with pytest.raises(EvaluationError, match="finite"):
        label_likelihood_calibrated.score(outcome([""], ["a"], prior_log_probs=np.array([0, -np.inf]), **fields))
