from __future__ import annotations

import numpy as np
import pytest

from foreword.errors import EvaluationError
from foreword.evaluate.scorers import label_likelihood

LOG_PROBS = np.log(np.array([[0.7, 0.2, 0.1], [0.5, 0.3, 0.2], [0.1, 0.2, 0.7]]))


def test_the_likeliest_label_answers(outcome) -> None:
    made = outcome(["", "", ""], ["a", "b", "C "], labels=("a", "b", "c"), label_log_probs=LOG_PROBS)
    score = label_likelihood.score(made)
    assert score.per_example is not None
    assert score.per_example.tolist() == [1, 0, 1]


def test_an_impossible_label_may_have_probability_zero(outcome) -> None:
    made = outcome([""], ["b"], labels=("a", "b"), label_log_probs=np.array([[-np.inf, -3.0]]))
    assert label_likelihood.score(made).value == 1


def test_a_wanted_label_that_does_not_exist_is_an_error(outcome) -> None:
    with pytest.raises(EvaluationError, match="Example 1 wants the label 'z'"):
        label_likelihood.score(outcome(["", "", ""], ["a", "z", "c"], labels=("a", "b", "c"), label_log_probs=LOG_PROBS))


def test_not_a_number_is_an_error(outcome) -> None:
    broken = LOG_PROBS.copy()
    broken[2, 1] = np.nan
    with pytest.raises(EvaluationError, match="example 2 are not numbers"):
        label_likelihood.score(outcome(["", "", ""], ["a", "b", "c"], labels=("a", "b", "c"), label_log_probs=broken))
