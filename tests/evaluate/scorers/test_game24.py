from __future__ import annotations

import pytest

from foreword.errors import EvaluationError
from foreword.evaluate.scorers import game24
from foreword.prompting.verifiers.game24 import question


def test_right_is_what_passes_the_exact_check(outcome) -> None:
    prompts = [question((4, 9, 10, 13))] * 4
    answers = ["Answer: (10 - 4) * (13 - 9) = 24", "Answer: 4 * 6", "(13 - 9) * (10 - 4)", ""]
    score = game24.score(outcome(answers, ["anything"] * 4, prompts=prompts))
    assert score.per_example is not None
    assert score.per_example.tolist() == [1, 0, 1, 0]
    assert score.value == 0.5 and score.higher_is_better


def test_a_prompt_without_numbers_is_named(outcome) -> None:
    with pytest.raises(EvaluationError, match="example 1 has 'Which"):
        game24.score(outcome(["24", "24"], ["", ""], prompts=[question((1, 1, 4, 6)), "Which numbers?"]))
