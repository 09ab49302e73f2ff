"""The script that knows exact arithmetic: it plays the Game of 24 as proposer and judge, and computes what it is asked.

It is asked in words, as any model, and knows the game's prompts (`prompting/decompositions/game24.py`) by their last lines. Every answer
is a function of the prompt and the seed. Nothing is shared with the checks and tasks of the game, as a model shares nothing with them: a
mistake on one side shows on the other.
"""

from __future__ import annotations

import ast
import itertools
import operator
import random
import re
from collections.abc import Iterator, Sequence
from fractions import Fraction
from functools import lru_cache

from foreword.engine import Conversation
from foreword.types import Sampling

AIM = 24
MOST_NUMBERS = 5
"""Of so many all ways are tried; more would take too long."""
NOTHING_ELSE = "I only know arithmetic."
_LEFT = re.compile(r"\bNumbers left: ([-0-9/ ]+)(?:\n(Next steps|One next step):)?\s*\Z")
_GIVEN = re.compile(r".*\bNumbers: *([0-9 ,]+)(.*)\Z", re.DOTALL)
_CHOICE = re.compile(r"^([0-9]+)\. .*\(left: ([-0-9/ ]+)\)$", re.MULTILINE)
_MADE = re.compile(r"\(left: ([-0-9/ ]+)\)")
_SUM = re.compile(r"[-(0-9][-+*/() 0-9]*[0-9)]")
_OPERATIONS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv}
_MOST_CHARACTERS, _MOST_ASKED = 200, 4_000

Numbers = tuple[Fraction, ...]


def answer(conversation: Conversation, sampling: Sampling) -> str:
    """What there is to say to the last message."""
    asked = conversation[-1].content
    if (found := _LEFT.search(asked)) and (left := _numbers(found[1])):
        if found[2] == "Next steps":
            return "\n".join(_steps(left))
        if found[2] == "One next step":
            return random.Random(sampling.seed).choice(_steps(left)) if len(left) > 1 else "There is nothing left to do."
        return _judged(left)
    if "`Best:`" in asked and (choices := _CHOICE.findall(asked)):
        return _chosen(choices)
    if (found := _GIVEN.match(asked)) and (numbers := _numbers(found[1].replace(",", " "))):
        return _solved(numbers, found[2])
    return _computed(asked[-_MOST_ASKED:])


def _numbers(text: str) -> Numbers:
    """The numbers from small to large; none where one cannot be read, or where they are too many."""
    try:
        numbers = sorted(Fraction(number) for number in text.split())
    except (ValueError, ZeroDivisionError):
        return ()
    return tuple(numbers) if len(numbers) <= MOST_NUMBERS else ()


@lru_cache(maxsize=1 << 14)
def _steps(left: Numbers) -> list[str]:
    """Every next step once. A difference is only negative where a number is: elsewhere every solution has one without."""
    return list(dict.fromkeys(f"{a} {sign} {b} = {made} (left: {' '.join(map(str, rest))})" for a, sign, b, made, rest in _next(left)))


def _next(left: Numbers) -> Iterator[tuple[Fraction, str, Fraction, Fraction, Numbers]]:
    """First number, sign, second number, what they make, and what is left after it."""
    for i, j in itertools.combinations(range(len(left)), 2):
        low, high = left[i], left[j]
        others = (*left[:i], *left[i + 1 : j], *left[j + 1 :])
        ways = [(low, "+", high, low + high), (high, "-", low, high - low), (low, "*", high, low * high)]
        ways += [(a, "/", b, a / b) for a, b in ((low, high), (high, low)) if b]
        if left[0] < 0:
            ways.append((low, "-", high, low - high))
        for a, sign, b, made in ways:
            yield a, sign, b, made, tuple(sorted((*others, made)))


@lru_cache(maxsize=1 << 18)
def _reaches(left: Numbers) -> bool:
    """Whether 24 can be made of all of these numbers."""
    if len(left) < 2:
        return left == (AIM,)
    return any(_reaches(rest) for *_, rest in _next(left))


def _judged(left: Numbers) -> str:
    told = " ".join(map(str, left))
    return f"{AIM} can be made of {told}\nsure" if _reaches(left) else f"{AIM} cannot be made of {told}\nimpossible"


def _chosen(choices: Sequence[tuple[str, str]]) -> str:
    best = next((number for number, left in choices if _reaches(_numbers(left))), choices[0][0])
    return f"Best: {best}"


def _solved(numbers: Numbers, steps: str) -> str:
    """The expression that makes 24, going on from the steps given where they are sound."""
    terms = [(number, str(number)) for number in numbers]
    for left in _MADE.findall(steps):
        terms = _taken(terms, _numbers(left)) or terms
    expression = _expression(terms)
    if expression is None:
        return f"{AIM} cannot be made of {' '.join(map(str, numbers))}."
    return f"Answer: {expression} = {AIM}"


def _taken(terms: list[tuple[Fraction, str]], left: Numbers) -> list[tuple[Fraction, str]] | None:
    """The terms after the step that leaves these numbers; None where there is none."""
    return next((rest for rest in _joined(terms) if tuple(sorted(value for value, _ in rest)) == left), None)


def _expression(terms: list[tuple[Fraction, str]]) -> str | None:
    if not _reaches(tuple(sorted(value for value, _ in terms))):
        return None
    while len(terms) > 1:
        terms = next(rest for rest in _joined(terms) if _reaches(tuple(sorted(value for value, _ in rest))))
    text = terms[0][1]
    return text[1:-1] if text.startswith("(") else text


def _joined(terms: list[tuple[Fraction, str]]) -> Iterator[list[tuple[Fraction, str]]]:
    """Two terms made one, in every way."""
    for first, second in itertools.permutations(range(len(terms)), 2):
        (a, left), (b, right) = terms[first], terms[second]
        others = [term for place, term in enumerate(terms) if place not in (first, second)]
        made = [(a + b, "+"), (a - b, "-"), (a * b, "*")] + ([(a / b, "/")] if b else [])
        yield from ([*others, (value, f"({left} {sign} {right})")] for value, sign in made)


def _computed(asked: str) -> str:
    """The value of the last sum in a text."""
    for text in reversed(_SUM.findall(asked)):
        if len(text) <= _MOST_CHARACTERS and not text.isdigit():
            try:
                return f"Answer: {_value(ast.parse(text.strip(), mode='eval').body)}"
            except (SyntaxError, ValueError, ZeroDivisionError, RecursionError):
                continue
    return NOTHING_ELSE


def _value(node: ast.AST) -> Fraction:
    """The value of parsed arithmetic. Raises `ValueError` for anything else."""
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATIONS:
        return _OPERATIONS[type(node.op)](_value(node.left), _value(node.right))
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -_value(node.operand)
    if isinstance(node, ast.Constant) and type(node.value) is int:
        return Fraction(node.value)
    raise ValueError("no arithmetic")
