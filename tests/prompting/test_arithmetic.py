"""Exact arithmetic from text, and what is refused."""

from __future__ import annotations

from fractions import Fraction

import pytest

from foreword.prompting.arithmetic import MOST_CHARACTERS, MOST_DEPTH, ArithmeticProblem, DividesByZero, compute, value_of


@pytest.mark.parametrize(
    ("expression", "value", "numbers"),
    [
        ("(4 + 8) * (6 - 4)", Fraction(24), (4, 8, 6, 4)),
        ("8 / (3 - 8 / 3)", Fraction(24), (8, 3, 8, 3)),
        ("2 + 3 * 4 - 10 / 4 / 5", Fraction(27, 2), (2, 3, 4, 10, 4, 5)),
        ("10 - 4 - 3", Fraction(3), (10, 4, 3)),
        ("[6 − 2] × 12 ÷ 2", Fraction(24), (6, 2, 12, 2)),
        (" 7 ", Fraction(7), (7,)),
    ],
)
def test_values_are_exact_and_signs_have_their_rank(expression: str, value: Fraction, numbers: tuple[int, ...]) -> None:
    found = compute(expression)
    assert (found.value, found.numbers) == (value, numbers)


@pytest.mark.parametrize(
    ("expression", "says"),
    [
        ("", "its end where a number"),
        ("4 +", "its end where a number"),
        ("(4 + 5", "its end where a parenthesis"),
        ("4 5", "'5' where an operation"),
        ("2(3 + 4)", "'(' where an operation"),
        ("2 ** 3", "'*' where a number"),
        ("-4 + 28", "'-' where a number"),
        ("__import__('os')", "'_', which is no number"),
        ("4.5 * 2", "'.', which is no number"),
        ("٤ + 5", "which is no number"),
        ("4 / (2 - 2)", "divides by zero"),
        ("(" * (MOST_DEPTH + 1) + "1" + ")" * (MOST_DEPTH + 1), "deep"),
        ("1+" * MOST_CHARACTERS + "1", "characters"),
    ],
)
def test_what_cannot_be_read_says_where(expression: str, says: str) -> None:
    with pytest.raises(ArithmeticProblem, match=r".") as raised:
        compute(expression)
    assert says in str(raised.value)


@pytest.mark.parametrize(
    ("tokens", "value"),
    [
        (["1,200.50", "*", "2"], Fraction(2401)),
        (["-", "3", "+", "5"], Fraction(2)),
        (["2", "*", "(", "-", "3", "+", "5", ")"], Fraction(4)),
    ],
)
def test_tokens_may_be_decimals_and_begin_with_a_minus(tokens: list[str], value: Fraction) -> None:
    assert value_of(tokens) == value


def test_tokens_without_a_value_are_told_from_those_that_cannot_be_read() -> None:
    with pytest.raises(DividesByZero):
        value_of(["1", "/", "0"])
    for tokens in (["2", "-", "-", "3"], ["2", "3"], ["("], []):
        with pytest.raises(ArithmeticProblem) as raised:
            value_of(tokens)
        assert not isinstance(raised.value, DividesByZero)
