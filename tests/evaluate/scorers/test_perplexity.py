from __future__ import annotations

import math

import numpy as np
import pytest

from foreword.errors import EvaluationError
from foreword.evaluate.scorers import perplexity


def test_is_taken_over_tokens_not_over_rows(outcome) -> None:
    made = outcome(["", ""], ["x", "y"], target_log_probs=(np.log([0.5]), np.log([0.25, 0.25, 0.25])))
    score = perplexity.score(made)
    assert score.value == pytest.approx(2 ** (7 / 4))
    assert score.per_example == pytest.approx([2, 4])
    assert score.statistic(np.array([1, 1])) == pytest.approx(4)
    assert not score.higher_is_better


def test_a_uniform_model_has_the_vocabulary_as_perplexity(outcome) -> None:
    rows = tuple(np.full(length, -math.log(49152)) for length in (1, 7, 30))
    assert perplexity.score(outcome(["", "", ""], ["x", "y", "z"], target_log_probs=rows)).value == pytest.approx(49152)


def test_an_impossible_token_makes_it_infinite_without_a_warning(outcome) -> None:
    assert perplexity.score(outcome([""], ["x"], target_log_probs=(np.array([-np.inf]),))).value == math.inf
    assert perplexity.score(outcome([""], ["x"], target_log_probs=(np.array([-1e6]),))).value == math.inf


def test_half_precision_input_is_summed_in_double(outcome) -> None:
    rows = (np.full(5000, -20.0, dtype=np.float16),)
    assert perplexity.score(outcome([""], ["x"], target_log_probs=rows)).value == pytest.approx(math.exp(20))


@pytest.mark.parametrize("row", [np.array([]), np.array([-1.0, np.nan])])
def test_a_row_without_numbers_is_named(outcome, row) -> None:
    with pytest.raises(EvaluationError, match="Example 1 has no reference token"):
        perplexity.score(outcome(["", ""], ["x", "y"], target_log_probs=(np.array([-1.0]), row)))
