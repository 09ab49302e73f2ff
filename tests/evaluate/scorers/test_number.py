from __future__ import annotations

import pytest

from foreword.errors import EvaluationError
from foreword.evaluate.scorers import number


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        ("#### 1200", 1),
        ("It is 3 + 4.\n#### $1,200.00", 1),
        ("The answer is 1200 dollars.", 1),
        (r"so \boxed{1200}", 1),
        ("600 and 600 make 1200", 1),
        ("#### 1200.5", 0),
        ("1200, and then #### 7", 0),
        ("-1200", 0),
        ("Answer: a lot. Well, 1200", 1),
        ("no number", 0),
        ("", 0),
    ],
)
def test_the_number_that_an_answer_comes_to(outcome, answer: str, right: int) -> None:
    assert number.score(outcome([answer], [["2 * 600 = 1200\n#### 1200"]])).value == right


def test_any_reference_will_do_and_one_must_have_a_number(outcome) -> None:
    assert number.score(outcome(["7", "8", "9"], [["6", "7"], ["8"], ["1"]])).value == pytest.approx(2 / 3)
    with pytest.raises(EvaluationError, match="Example 1 has no reference with a number"):
        number.score(outcome(["7", "8"], [["7"], ["eight"]]))
