"""`equations`: every `a op b = c` in the answer is right, in exact arithmetic.

Decimals are read as they are written, so `10 / 4 = 2.5` is right and `10 / 3 = 3.33` is not; a rounded result wants a `≈`. What cannot be
judged for certain is left alone: sides with unknowns, powers or percents in them.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from fractions import Fraction

from foreword.prompting.arithmetic import ArithmeticProblem, DividesByZero, value_of
from foreword.prompting.verifier import Ask, Verdict
from foreword.types import Message

MOST_CHARACTERS = 20_000
MOST_TOKENS = 64
"""Of one side."""
MOST_DIGITS = 40
MOST_TOLD = 5

_ALIKE = str.maketrans({"×": "*", "·": "*", "÷": "/", "−": "-", "–": "-", "$": None, "€": None, "£": None})
_TIMES = re.compile(r"(?<=[0-9])([ \t]*)[xX](?=[ \t]*[0-9])")
_BULLET = re.compile(r"^\s*[-*•]\s+")
_ARITHMETIC = "0123456789 \t.,()+*/-"
_TOKEN = re.compile(r"\d{1,3}(?:,\d{3})+(?:\.\d+)?(?!\d)|\d+(?:\.\d+)?|[-+*/()]|[.,]", re.ASCII)
_OPERATORS = frozenset("+-*/")

Side = tuple[str, Fraction | None, bool]
"""As it is written, its value (None where it divides by zero), and whether anything is calculated in it."""


async def verify(conversation: Sequence[Message], answer: str, ask: Ask) -> Verdict:
    """1 where there are equations and all are right, a half where there is none, less where one is wrong. Asks no model."""
    right, wrong = 0, []
    for line in answer[:MOST_CHARACTERS].splitlines():
        for (left, value, _), (told, other, _) in _equations(line):
            if value is not None and value == other:
                right += 1
            else:
                wrong.append(f"`{left} = {told}` is wrong: {left} {'has no value' if value is None else f'is {value}'}.")
    if wrong:
        return Verdict(score=0.5 * right / (right + len(wrong)), reason=" ".join(wrong[:MOST_TOLD]))
    if right:
        return Verdict(score=1.0)
    return Verdict(score=0.5, reason="There is no equation that can be checked. Write each calculation as `a + b = c`.")


def _equations(line: str) -> Iterator[tuple[Side, Side]]:
    """What stands on either side of each equal sign, where both can be read and something is calculated."""
    parts = _TIMES.sub(r"\1*", _BULLET.sub("", line).translate(_ALIKE)).split("=")
    for before, after in itertools.pairwise(parts):
        left, right = _left_of(before), _right_of(after)
        if left is not None and right is not None and (left[2] or right[2]):
            yield left, right


def _left_of(text: str) -> Side | None:
    """The longest calculation at the end of a text."""
    before_run = text.rstrip(_ARITHMETIC)
    run, previous = text[len(before_run) :], before_run[-1:]
    if previous in ("^", "%", "_", "√", "!") or (previous.isalnum() and run[:1] not in ("", " ", "\t", "(")):
        return None
    # A sign after a word may as well be a minus between an unknown and what follows.
    signed = not previous or not (previous.isalnum() or previous in ")]}%")
    tokens = _tokens(run)
    tokens = tokens[max((place + 1 for place, token in enumerate(tokens) if token in ".,"), default=0) :]
    for start, token in enumerate(tokens):
        before = tokens[start - 1] if start else ""
        if before in _OPERATORS or before == ")" or (token in _OPERATORS and not (token == "-" and not start and signed)):
            continue
        side = _side(tokens[start:])
        if side is not None:
            return side
    return None


def _right_of(text: str) -> Side | None:
    """The longest calculation at the start of a text."""
    after_run = text.lstrip(_ARITHMETIC)
    if after_run[:1] in ("^", "%"):
        return None
    tokens = _tokens(text[: len(text) - len(after_run)])
    tokens = tokens[: next((place for place, token in enumerate(tokens) if token in ".,"), len(tokens))]
    for end in range(len(tokens), 0, -1):
        if end < len(tokens) and tokens[end] in _OPERATORS:
            continue
        side = _side(tokens[:end])
        if side is not None:
            return side
    return None


def _tokens(run: str) -> list[str]:
    tokens = _TOKEN.findall(run)
    return tokens if len(tokens) <= MOST_TOKENS and all(len(token) <= MOST_DIGITS for token in tokens) else []


def _side(tokens: Sequence[str]) -> Side | None:
    try:
        value = value_of(tokens)
    except DividesByZero:
        value = None
    except ArithmeticProblem:
        return None
    return " ".join(tokens).replace("( ", "(").replace(" )", ")"), value, bool(_OPERATORS.intersection(tokens[1:]))
