"""`equations`: right, wrong, and what is none of its business."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asking import QUESTION
from foreword.prompting.verifier import Verdict
from foreword.prompting.verifiers import equations


async def no_model(*conversation, **changes):
    raise AssertionError("this verifier computes")


def verdict(answer: str) -> Verdict:
    return asyncio.run(equations.verify(QUESTION, answer, no_model))


@pytest.mark.parametrize(
    "answer",
    [
        "3 + 4 = 7",
        "She has 3*4+2 = 14 eggs.",
        "1. 3 + 4 = 7",
        "- 3 + 4 = 7",
        "-3 + 4 = 1",
        "(2+3)*4 = 20 and <<48/2=24>>24 apples",
        "1,000 + 2 = 1,002",
        "$5 × 2 = $10",
        "3 x 4 = 12",
        "10 / 4 = 2.5",
        "0.1 + 0.2 = 0.3",
        "12 = 3 * 4",
        "total = 3 + 4 = 7.",
        "((((3+4 = 7",
    ],
)
def test_right(answer: str) -> None:
    assert verdict(answer).passed


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("3 + 4 = 8", "3 + 4 is 7"),
        ("2 + 3 = 5 * 2 = 10", "`2 + 3 = 5 * 2` is wrong"),
        ("10 / 3 = 3.33", "is 10/3"),
        ("4 / 0 = 3", "has no value"),
        ("2 - 5 = 3", "is -3"),
        ("(1 + 2) * 3 = 7", "(1 + 2) * 3 is 9"),
    ],
)
def test_wrong(answer: str, reason: str) -> None:
    found = verdict(answer)
    assert found.score < 0.5 and reason in found.reason


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "Seven.",
        "x - 3 + 4 = 7",
        "2 * x = 6",
        "2x = 6",
        "x2 + 1 = 5",
        "3^2 + 1 = 10",
        "20% * 50 = 10",
        "10 / 20 = 50%",
        "(3 apples) + 4 = 9",
        "5 + 5 = ten",
        "3 + 4 == 8 or 3 + 4 <= 8",
        "n = 7",
        "7 = 8",
    ],
)
def test_not_judged(answer: str) -> None:
    found = verdict(answer)
    assert found.score == 0.5 and "no equation" in found.reason


def test_one_wrong_among_several() -> None:
    assert verdict("1 + 1 = 2\n2 + 2 = 4\n3 + 3 = 7").score == pytest.approx(1 / 3)


@settings(deadline=None)
@given(st.integers(-999, 999), st.integers(1, 999), st.integers(1, 999), st.sampled_from("+-*"))
def test_python_agrees(one: int, two: int, three: int, operator: str) -> None:
    value = eval(f"{one} + {two} {operator} {three}")
    assert verdict(f"{one} + {two} {operator} {three} = {value}").passed
    assert not verdict(f"{one} + {two} {operator} {three} = {value + 1}").passed


@settings(deadline=None)
@given(st.text(alphabet="0123456789+-*/=(). ,x$%^a\n", max_size=400))
def test_any_text_has_a_verdict(answer: str) -> None:
    assert 0 <= verdict(answer).score <= 1


@pytest.mark.parametrize("answer", ["(" * 100_000, "1+" * 100_000 + "1=2", "1 = " * 25_000, "9" * 100_000 + "+1=2", "1 " * 50_000 + "a"])
def test_hostile_texts_are_bounded(answer: str) -> None:
    assert verdict(answer).score == 0.5
