"""Short answers in long ones."""

from __future__ import annotations

import pytest

from foreword.prompting.final_answer import final_answer, last_number, marked_answer, vote_key


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("3 + 4 = 7\n#### 7", "7"),
        ("So it is \\boxed{42}.", "42"),
        ("Answer: (B)", "(B)"),
        ("**Answer:** (B)", "(B)"),
        ("The answer is 18.", "18"),
        ("The answer is: 18 eggs.", "18 eggs"),
        ("answer = 3", "3"),
        ("The answer is 3. No, wait.\nThe answer is 4.", "4"),
        ("Answer: 3\n#### 5", "5"),
        ("There is no such thing.", None),
        ("", None),
        ("Answer:", None),
    ],
)
def test_marks(text: str, found: str | None) -> None:
    assert marked_answer(text) == found


def test_without_a_mark_the_last_line_stands() -> None:
    assert final_answer("First this.\nThen 7.\n\n") == "Then 7."
    assert final_answer("First this.\nAnswer: 7\nBye.") == "7"
    assert final_answer(" \n ") == ""


@pytest.mark.parametrize(
    ("text", "number"),
    [("from 3 to $1,200.00 in all", "1200"), ("-5.50 degrees", "-5.5"), ("none", None), ("0.0", "0"), ("it is 7.", "7")],
)
def test_last_number(text: str, number: str | None) -> None:
    assert last_number(text) == number


@pytest.mark.parametrize(
    ("one", "other"), [("18", "18.00"), ("$1,200", "1200"), ("(B)", "(b)."), ("New  York", "new york!"), ("'Yes'", "yes"), ("-0", "0")]
)
def test_one_meaning_one_vote(one: str, other: str) -> None:
    assert vote_key(one) == vote_key(other)


@pytest.mark.parametrize(("one", "other"), [("18", "81"), ("(A)", "(B)"), ("-3", "3"), ("1.5", "15")])
def test_other_meanings_are_other_votes(one: str, other: str) -> None:
    assert vote_key(one) != vote_key(other)
