"""The exact check of the Game of 24, against all solutions that trying every way finds."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator
from fractions import Fraction
from functools import cache

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from foreword.prompting import verifier
from foreword.prompting.arithmetic import compute
from foreword.prompting.verifiers import game24
from foreword.types import Completion, Message


def solutions(terms: tuple[tuple[Fraction, str], ...]) -> Iterator[str]:
    """Every way to make 24, found by joining two terms at a time."""
    if len(terms) == 1:
        if terms[0][0] == 24:
            yield terms[0][1]
        return
    for i, j in itertools.permutations(range(len(terms)), 2):
        (a, left), (b, right) = terms[i], terms[j]
        rest = tuple(term for place, term in enumerate(terms) if place not in (i, j))
        for sign, value in (("+", a + b), ("-", a - b), ("*", a * b), ("/", a / b if b else None)):
            if value is not None:
                yield from solutions((*rest, (value, f"({left} {sign} {right})")))


@cache
def some_solutions(numbers: tuple[int, ...]) -> tuple[str, ...]:
    return tuple(itertools.islice(solutions(tuple((Fraction(number), str(number)) for number in numbers)), 5))


async def never(*_: object, **__: object) -> Completion:
    raise AssertionError("the check asks no model")


def verdict(question: str, answer: str) -> verifier.Verdict:
    return asyncio.run(verifier.get("game24")([Message(role="user", content=question)], answer, never))


PUZZLES = st.sampled_from([(4, 9, 10, 13), (3, 3, 8, 8), (1, 1, 4, 6), (1, 5, 5, 5), (2, 3, 5, 12), (6, 6, 6, 6), (1, 4, 8, 8)])


@given(
    numbers=PUZZLES,
    pick=st.integers(0, 4),
    form=st.sampled_from(["Answer: {}", "{}", "Steps\nAnswer: {} = 24.", "so \\boxed{{{}}}", "**Answer:** `{}`"]),
)
@settings(max_examples=60, deadline=None)
def test_every_solution_passes_in_every_form(numbers: tuple[int, ...], pick: int, form: str) -> None:
    found = some_solutions(numbers)
    assert found
    assert verdict(game24.question(numbers), form.format(found[pick % len(found)])) == verifier.Verdict(score=1.0)


@given(numbers=PUZZLES, pick=st.integers(0, 4), place=st.integers(0, 3), other=st.integers(0, 20))
@settings(max_examples=60, deadline=None)
def test_a_solution_with_another_number_fails(numbers: tuple[int, ...], pick: int, place: int, other: int) -> None:
    found = some_solutions(numbers)
    solution = found[pick % len(found)]
    used = compute(solution).numbers
    assume(other != used[place])
    pieces = iter(range(4))
    changed = "".join(
        str(other) if token.isdigit() and next(pieces) == place else token for token in _split(solution)
    )  # fmt: skip
    judged = verdict(game24.question(numbers), changed)
    assert judged.score == 0.0 and judged.reason


@given(numbers=st.lists(st.integers(1, 13), min_size=4, max_size=4), signs=st.lists(st.sampled_from("+-*"), min_size=3, max_size=3))
@settings(max_examples=100, deadline=None)
def test_an_expression_of_the_right_numbers_passes_if_and_only_if_it_makes_24(numbers: list[int], signs: list[str]) -> None:
    expression = "".join(f"{number} {sign} " for number, sign in zip(numbers, signs, strict=False)) + str(numbers[-1])
    expected = eval(expression)  # built here of numbers and three signs
    judged = verdict(game24.question(numbers), expression)
    assert judged.passed is (expected == 24)
    if expected != 24:
        assert judged.reason == f"`{expression}` makes {expected}, not 24."


def _split(expression: str) -> list[str]:
    return ["".join(group) for _, group in itertools.groupby(expression, key=str.isdigit)]


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        ("Answer: 4 * (10 - 4)", "uses 4 twice, given once and does not use 9 and does not use 13"),
        ("Answer: 9 + 10 + 4", "does not use 13 and makes 23, not 24"),
        ("Answer: 24", "uses 24, which is not given"),
        ("Answer: 4 / (9 + 4 - 13) + 10", "divides by zero"),
        ("Answer: (4 + 9", "where a parenthesis should close"),
        ("no idea", "which is no number"),
        ("", "There is no expression"),
        ("9" * 100_000, "characters"),
        ("(" * 100_000, "characters"),
    ],
)
def test_the_reason_says_what_is_wrong(answer: str, says: str) -> None:
    judged = verdict(game24.question((4, 9, 10, 13)), answer)
    assert not judged.passed and says in judged.reason and len(judged.reason) < 400


def test_the_last_numbers_of_a_question_count_and_none_is_a_reason() -> None:
    assert game24.numbers_in(game24.question((4, 9, 10, 13))) == (4, 9, 10, 13)
    assert game24.numbers_in("Numbers: 1 2 3 4\nAnswer: ...\n\nNumbers: 5, 6, 7, 8\n") == (5, 6, 7, 8)
    assert game24.numbers_in("Numbers left: 3 4") == ()
    assert "no numbers" in verdict("What is the capital of Peru?", "1 + 2").reason


def test_what_follows_the_equals_sign_is_not_looked_at() -> None:
    assert verdict(game24.question((4, 9, 10, 13)), "Answer: (10 - 4) \\times (13 - 9) = 25").passed
    assert not verdict(game24.question((4, 9, 10, 13)), "Answer: 10 - 4 = 6 * 4 = 24").passed
