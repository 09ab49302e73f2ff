"""`game24`: a thought of the Game of 24 puts in the place of two numbers what they make (Yao et al. 2023, section 4.1).

    4 + 8 = 12 (left: 4 6 12)

A thought that uses a number which is not left, or whose sum is wrong, is not taken; what is left is computed here and not believed. Three
thoughts spell out an expression, so that no further call is needed for the answer.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from fractions import Fraction
from typing import cast

from foreword.errors import StrategyError
from foreword.prompting.arithmetic import SIGNS
from foreword.prompting.decomposition import State, numbered
from foreword.prompting.verifiers.game24 import AIM, numbers_in, question

_NUMBER = r"-?[0-9]{1,9}(?:/[0-9]{1,9}|\.[0-9]{1,6})?"
_STEP = re.compile(rf"({_NUMBER})\s*([-+*/])\s*({_NUMBER})\s*=\s*({_NUMBER})", re.ASCII)
_OPERAND = re.compile(_NUMBER, re.ASCII)
_BULLET = re.compile(r"^\s*(?:[0-9]{1,3}[.):]|[-*•])\s+", re.ASCII)
_RULE = "A step takes two of the numbers left and puts their sum, difference, product or quotient in their place."


def begin(question: str) -> State:
    """The numbers as they are given.

    Raises:
        StrategyError: the question gives no numbers.
    """
    numbers = numbers_in(question)
    if not numbers:
        raise StrategyError(
            "The decomposition `game24` reads a question that ends with `Numbers: 4 9 10 13`, and this one gives no numbers. Word it with "
            "`foreword.prompting.verifiers.game24.question`, or choose the decomposition `general`."
        )
    return State(question=question, key=tuple(sorted(map(Fraction, numbers))), title=" ".join(map(str, numbers)))


def propose(state: State, count: int) -> str:
    """Asks for all next steps, however many are wanted."""
    return (
        f"{_RULE} The aim is {AIM}.\n\nNumbers left: 2 8 8 14\nNext steps:\n2 + 8 = 10 (left: 8 10 14)\n8 / 2 = 4 (left: 4 8 14)\n"
        f"14 - 8 = 6 (left: 2 6 8)\n2 * 14 = 28 (left: 8 8 28)\n\nNumbers left: {_left(state)}\nNext steps:"
    )


def sample(state: State) -> str:
    """Asks for one next step."""
    return (
        f"{_RULE} The aim is {AIM}.\n\nNumbers left: 2 8 8 14\nOne next step:\n14 - 8 = 6 (left: 2 6 8)\n\n"
        f"Numbers left: {_left(state)}\nOne next step:"
    )


def read(state: State, text: str, count: int) -> list[State]:
    """A state for each step that is sound, however many were wanted."""
    states = []
    for line in text.translate(SIGNS).splitlines():
        found = _STEP.search(_BULLET.sub("", line, count=1))
        reached = _reached(state, *found.groups()) if found else None
        if reached is not None:
            states.append(reached)
    return states


def judge(state: State) -> str:
    """Asks whether 24 can be made of what is left."""
    return (
        f"Can {AIM} be made of the numbers left, each used once, with + - * /? Try a few ways. The last line is one word: sure, likely or "
        "impossible.\n\nNumbers left: 10 14\n10 + 14 = 24\nsure\n\n"
        "Numbers left: 11 12\n11 + 12 = 23, 12 - 11 = 1, 11 * 12 = 132\nimpossible\n\n"
        "Numbers left: 5 7 8\n5 + 7 + 8 = 20, (8 - 5) * 7 = 21, which is near\nlikely\n\n"
        f"Numbers left: {_left(state)}"
    )


def vote(states: Sequence[State]) -> str:
    """Asks which step is the best."""
    return (
        f"{_RULE} The aim is {AIM}. These steps could be next:\n{numbered([str(state) for state in states])}\n\n"
        f"Of which one can {AIM} still be made? Try a few ways. The last line is `Best:` and its number."
    )


def finished(state: State) -> bool:
    """Whether one number is left."""
    return len(state.key) == 1


def answer(state: State) -> str | None:
    """The steps and the expression that they make, where one number is left."""
    if not finished(state):
        return None
    return "\n".join((*state.thoughts, f"Answer: {_expression(state)} = {_written(_numbers(state)[0])}"))


def close(state: State) -> str:
    """Asks for the expression."""
    steps = f"\n\nBegin with these steps:\n{numbered(state.thoughts)}" if state.thoughts else ""
    return f"{question(numbers_in(state.question))}{steps}" if steps else state.question


def _numbers(state: State) -> tuple[Fraction, ...]:
    return cast(tuple[Fraction, ...], state.key)


def _left(state: State) -> str:
    return " ".join(map(_written, _numbers(state)))


def _written(number: Fraction) -> str:
    return str(number)


def _reached(state: State, first: str, sign: str, second: str, result: str) -> State | None:
    """The state after a step, None where the step is unsound."""
    left = list(_numbers(state))
    try:
        a, b, made = Fraction(first), Fraction(second), Fraction(result)
        for number in (a, b):
            left.remove(number)
        true = {"+": a + b, "-": a - b, "*": a * b}.get(sign, a / b if sign == "/" and b else None)
    except (ValueError, ZeroDivisionError):
        return None
    if true != made:
        return None
    left = sorted([*left, made])
    told = f"{_written(a)} {sign} {_written(b)} = {_written(made)} (left: {' '.join(map(_written, left))})"
    return State(question=state.question, thoughts=(*state.thoughts, told), key=tuple(left))


def _expression(state: State) -> str:
    """The steps put into each other. Every made number is in parentheses but the last, so that the order of steps is kept."""
    made: list[tuple[Fraction, str]] = [(Fraction(number), str(number)) for number in numbers_in(state.question)]
    for thought in state.thoughts:
        found = _STEP.match(thought)
        assert found is not None, "thoughts are written by `_reached`"
        first, sign, second, result = found.groups()
        terms = []
        for operand in (first, second):
            place = next(index for index, (value, _) in enumerate(made) if value == Fraction(operand))
            terms.append(made.pop(place)[1])
        made.append((Fraction(result), f"({terms[0]} {sign} {terms[1]})"))
    text = made[-1][1]
    return text[1:-1] if text.startswith("(") else text
