"""Arithmetic as people and models write it, computed exactly: numbers, `+ - * /` and parentheses. Nothing is evaluated as code."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from foreword.errors import StrategyError

MOST_CHARACTERS = 400
MOST_DEPTH = 50
"""Parentheses within parentheses."""
SIGNS = str.maketrans("×·⋅∗÷∕−–[]{}", "****//--()()")
"""Other signs for the same operations."""
_TOKEN = re.compile(r"\s*(?:([0-9]+)|([-+*/()]))", re.ASCII)


class ArithmeticProblem(StrategyError):
    """A text that is no arithmetic, or has no value; the message says why in words that a model can act on."""


class DividesByZero(ArithmeticProblem):
    """Arithmetic without a value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Computed:
    """What an expression comes to. `numbers` are those written in it, from left to right."""

    value: Fraction
    numbers: tuple[int, ...]


def compute(expression: str) -> Computed:
    """The value of an expression such as `(4 + 8) * (6 - 4)`.

    A sign belongs to two numbers: `-4` and `2(3 + 4)` are not taken. `×`, `÷`, `−` and square brackets are read as what they mean.

    Raises:
        ArithmeticProblem: it is too long or nested too deep, cannot be read, or divides by zero.
    """
    if len(expression) > MOST_CHARACTERS:
        raise ArithmeticProblem(f"has {len(expression):,} characters, more than {MOST_CHARACTERS}")
    reader = _Reader(_tokens(expression.translate(SIGNS).rstrip()), signed=False)
    value = reader.whole()
    return Computed(value=value, numbers=tuple(map(int, reader.numbers)))


def value_of(tokens: Sequence[str]) -> Fraction:
    """The value of tokens: numbers (`1,200.50` is one), signs and parentheses. A sum may begin with a minus.

    Raises:
        DividesByZero: it has no value.
        ArithmeticProblem: it cannot be read.
    """
    return _Reader(tokens, signed=True).whole()


def _tokens(expression: str) -> list[str]:
    tokens, place = [], 0
    while place < len(expression):
        found = _TOKEN.match(expression, place)
        if found is None:
            raise ArithmeticProblem(f"has {_shown(expression[place:].lstrip()[:1])}, which is no number, + - * / or parenthesis")
        tokens.append(found[1] or found[2])
        place = found.end()
    return tokens


class _Reader:
    """Reads tokens from left to right; products bind tighter than sums."""

    def __init__(self, tokens: Sequence[str], *, signed: bool) -> None:
        """Args: signed: a sum may begin with a minus."""
        self._tokens, self._place, self._signed = tokens, 0, signed
        self.numbers: list[Fraction] = []

    def whole(self) -> Fraction:
        """The value of all tokens together."""
        value = self._sum(0)
        if self._left():
            raise ArithmeticProblem(f"has {_shown(self._take())} where an operation should stand")
        return value

    def _left(self) -> bool:
        return self._place < len(self._tokens)

    def _take(self) -> str:
        token = self._tokens[self._place] if self._left() else ""
        self._place += 1
        return token

    def _sum(self, depth: int) -> Fraction:
        negative = self._signed and self._next_is("-") and bool(self._take())
        value = -self._product(depth) if negative else self._product(depth)
        while self._next_is("+", "-"):
            sign, other = self._take(), self._product(depth)
            value = value + other if sign == "+" else value - other
        return value

    def _product(self, depth: int) -> Fraction:
        value = self._number(depth)
        while self._next_is("*", "/"):
            sign, other = self._take(), self._number(depth)
            if sign == "/" and not other:
                raise DividesByZero("divides by zero")
            value = value * other if sign == "*" else value / other
        return value

    def _number(self, depth: int) -> Fraction:
        token = self._take()
        if token[:1].isdigit():
            self.numbers.append(Fraction(token.replace(",", "")))
            return self.numbers[-1]
        if token != "(":
            raise ArithmeticProblem(f"has {_shown(token)} where a number should stand")
        if depth == MOST_DEPTH:
            raise ArithmeticProblem(f"has parentheses more than {MOST_DEPTH} deep")
        value = self._sum(depth + 1)
        if (token := self._take()) != ")":
            raise ArithmeticProblem(f"has {_shown(token)} where a parenthesis should close")
        return value

    def _next_is(self, *signs: str) -> bool:
        return self._left() and self._tokens[self._place] in signs


def _shown(token: str) -> str:
    return repr(token) if token else "its end"
