from __future__ import annotations

import numpy as np
import pytest

from foreword.errors import EvaluationError
from foreword.evaluate.scorer import Outcome, get
from foreword.evaluate.scorers.fields import parse, score

WANTED = "QUEUE: returns | URGENCY: high | REPLY: Sorry about the tank."


def outcome(*answers: str, references: tuple[str, ...] = (WANTED,)) -> Outcome:
    return Outcome(answers=answers, references=(references,) * len(answers), prompts=("",) * len(answers))


def value(answer: str, *references: str) -> float:
    return score(outcome(answer, references=references or (WANTED,))).value


def test_share_of_short_fields() -> None:
    result = score(
        outcome(
            WANTED,
            "QUEUE: returns | URGENCY: low | REPLY: Sorry about the tank.",
            "QUEUE: repair | URGENCY: low | REPLY: Sorry about the tank.",
        )
    )
    assert result.per_example is not None
    assert result.per_example.tolist() == [1.0, 0.5, 0.0]
    assert result.value == pytest.approx(0.5)
    assert result.higher_is_better
    assert result.statistic(np.array([0, 0, 1])) == pytest.approx(2.5 / 3)


def test_the_free_text_is_not_judged() -> None:
    assert value("QUEUE: returns | URGENCY: high | REPLY: No.") == 1.0
    assert value("QUEUE: returns | URGENCY: high") == 1.0


def test_white_space_and_order_do_not_matter() -> None:
    assert value("  URGENCY:high|QUEUE :  returns  |  REPLY: x\n") == 1.0


@pytest.mark.parametrize(
    "answer",
    [
        "QUEUE: Returns | URGENCY: High | REPLY: x",
        "queue: returns | urgency: high | reply: x",
        "QUEUE: returns. | URGENCY: high priority | REPLY: x",
        "Sure! QUEUE: returns, URGENCY: high",
        "QUEUE: returns | QUEUE: repair | URGENCY: low | REPLY: x",
        "QUEUE returns URGENCY high",
        "",
    ],
)
def test_what_is_not_exactly_right_is_wrong(answer: str) -> None:
    assert value(answer) == 0.0


def test_a_field_given_twice_is_wrong_even_when_both_agree() -> None:
    assert value("QUEUE: returns | QUEUE: returns | URGENCY: high | REPLY: x") == 0.5


def test_the_best_reference_counts() -> None:
    other = "QUEUE: repair | URGENCY: high | REPLY: Sorry."
    assert value("QUEUE: repair | URGENCY: high | REPLY: x", WANTED, other) == 1.0
    assert value("QUEUE: repair | URGENCY: high | REPLY: x", WANTED) == 0.5


def test_a_bar_in_the_free_text_starts_no_field() -> None:
    assert parse("A: 1 | B: x | y | z: no") == [("A", "1"), ("B", "x | y | z: no")]


def test_values_may_hold_colons_and_line_breaks() -> None:
    assert parse("TIME: 10:30 | NOTE: first\nsecond") == [("TIME", "10:30"), ("NOTE", "first\nsecond")]


@pytest.mark.parametrize("reference", ["returns", "REPLY: only free text", "QUEUE: a | QUEUE: b | REPLY: x"])
def test_a_reference_without_short_fields_is_an_error_that_names_the_row(reference: str) -> None:
    bad = Outcome(answers=("a", "b"), references=((WANTED,), (reference,)), prompts=("", ""))
    with pytest.raises(EvaluationError, match="example 1 has"):
        score(bad)


def test_found_by_its_file_name() -> None:
    assert get("fields").score(outcome(WANTED)).value == 1.0
