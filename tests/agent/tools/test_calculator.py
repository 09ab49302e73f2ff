"""Exact arithmetic."""

from __future__ import annotations

import asyncio
import random
from fractions import Fraction
from typing import Any

import pytest

from foreword.agent.tools import calculator
from foreword.agent.tools.calculator import computed
from foreword.errors import ToolError
from foreword.prompting.tool import Observation, Tools


def called(arguments: str | dict[str, Any]) -> Observation:
    return asyncio.run(Tools.of([calculator.make()]).call("calculator", arguments))


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("6 * 7", "42"),
        ("6 × 7 =", "42"),
        ("0.1 + 0.2", "0.3"),
        ("1/3", "0.3333333333333333 (exactly 1/3)"),
        ("-1/8", "-0.125"),
        ("1/3 + 2/3", "1"),
        ("2^10", "1024"),
        ("-2**2", "-4"),
        ("7 // 2 + 7 % 4", "6"),
        ("1,234,567 * 2", "2469134"),
        ("max(1,200)", "200"),
        ("$12.50 * 4", "50"),
        ("sqrt(16/9)", "1.3333333333333333 (exactly 4/3)"),
        ("sqrt(2)", "1.4142135623731 (rounded)"),
        ("2 ** 0.5", "1.4142135623731 (rounded)"),
        ("(1/4) ** (1/2)", "0.5"),
        ("1e3 + 0x10", "1016"),
        ("0 ** 0", "1"),
        ("(-1) ** (10 ** 30 + 1)", "-1"),
        ("round(2/3, 2)", "0.67"),
        ("round(2.5)", "2"),
        ("floor(-0.5) + ceil(0.5)", "0"),
        ("lcm(4, 6) + gcd(4, 6)", "14"),
        ("comb(5, 2) * factorial(5)", "1200"),
        ("sum(1, 2, 3) / abs(-4)", "1.5"),
        ("sin(0) + cos(0)", "1 (rounded)"),
        ("log10(1000)", "3 (rounded)"),
        ("123456789012345678901234567890 + 1", "123456789012345678901234567891"),
    ],
)
def test_expressions_have_their_value(expression: str, value: str) -> None:
    assert called({"expression": expression}) == Observation(text=value)


def test_random_expressions_are_exact() -> None:
    draw = random.Random(0)
    for _ in range(200):
        numbers = [Fraction(draw.randrange(-99, 99), draw.randrange(1, 99)) for _ in range(4)]
        total = numbers[0] * numbers[1] - numbers[2] + numbers[3]
        told = computed(" ".join((f"({numbers[0]}) * ({numbers[1]}) -", f"({numbers[2]}) + ({numbers[3]})")))
        exactly = told.partition("exactly ")[2].rstrip(")") or told
        assert Fraction(exactly) == total


@pytest.mark.parametrize(
    "expression",
    [
        *(
            "",
            "six times seven",
            "2 +",
            "(" * 500 + "1" + ")" * 500,
            "1 if 1 else 2",
            "[1] * 9",
            "'a' * 9",
            "1j",
            "True + 1",
            "x := 3",
            "a.b",
        ),
        *("__import__('os').system('true')", "(lambda: 1)()", "sqrt", "sqrt(x=1)", "open('f')", "1 < 2", "max()", "sqrt()", "sqrt(1, 2)"),
        *("1/0", "7 % 0", "0 ** -1", "sqrt(-1)", "(-8) ** 0.5", "(-8) ** (1/3)", "log(0)", "exp(1000)", "factorial(-1)", "factorial(0.5)"),
    ],
)
def test_what_has_no_value_is_told(expression: str) -> None:
    found = called({"expression": expression})
    assert not found.ok
    assert "Error" not in found.text


@pytest.mark.parametrize(
    "expression",
    [
        *("9 ** 9 ** 9", "2 ** 99999999", "1e999999999", "1e-999999999", "factorial(100000)", "factorial(1000) ** 99", "comb(10 ** 9, 5)"),
        *(
            "round(1, 10 ** 9)",
            "9" * 2_000,
            "-" * 999 + "1",
            "**".join(["9"] * 200),
            "*".join(["1e3000"] * 100),
            "10 ** 300 * 1.5 ** 0.5 * 10 ** 300",
        ),
    ],
)
def test_what_would_never_end_ends(expression: str) -> None:
    assert len(called({"expression": expression}).text) < 5_000


@pytest.mark.parametrize("arguments", [{}, {"expression": ["1"]}, {"expression": "1", "digits": 3}, {"expression": None}])
def test_other_arguments_are_refused(arguments: dict[str, Any]) -> None:
    found = called(arguments)
    assert not found.ok
    assert '{"expression": "6 * 7"}' in found.text


def test_a_number_is_an_expression() -> None:
    assert called({"expression": 42}).text == "42"


def test_the_error_names_the_functions() -> None:
    with pytest.raises(ToolError, match=r"no function `median`. Functions: abs, acos"):
        computed("median(1, 2)")
