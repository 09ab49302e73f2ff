"""`game24`: whether an expression makes 24 of the numbers in the question, each used once, in exact arithmetic.

`question` words the game for everybody: tasks, strategies and this check read the numbers from it with `numbers_in`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from foreword.prompting import turns
from foreword.prompting.arithmetic import SIGNS, ArithmeticProblem, compute
from foreword.prompting.final_answer import final_answer
from foreword.prompting.verifier import Ask, Verdict
from foreword.types import Message

AIM = 24
MOST_NUMBERS = 8
_NUMBERS = re.compile(r"\bNumbers:[ \t]*([0-9]{1,6}(?:[ \t,]+[0-9]{1,6})*)", re.ASCII)
_WRAPPED = re.compile(r"\\(?:times|cdot)\b")


def question(numbers: Sequence[int]) -> str:
    """How the game is asked for, whoever asks."""
    return (
        f"Make {AIM} of the numbers below with + - * / and parentheses. Use each number exactly once. "
        f"Write the expression on a last line that begins with `Answer:`.\n\nNumbers: {' '.join(map(str, numbers))}"
    )


def numbers_in(text: str) -> tuple[int, ...]:
    """The numbers that a question gives, the last ones where it gives several (examples may stand before it); empty where it gives none."""
    found = _NUMBERS.findall(text)
    return tuple(int(number) for number in re.split(r"[ \t,]+", found[-1]))[:MOST_NUMBERS] if found else ()


def judge(numbers: Sequence[int], answer: str) -> Verdict:
    """Whether the answer's expression makes 24 of these numbers.

    The expression stands after a mark such as `Answer:`, or on the last line; what follows a `=` is not looked at.
    """
    expression = expression_in(answer)
    if not expression:
        return Verdict(score=0.0, reason="There is no expression. End with a line such as `Answer: (1 + 2 + 5) * 3`.")
    try:
        found = compute(expression)
    except ArithmeticProblem as problem:
        return Verdict(score=0.0, reason=f"`{expression[:80]}` {problem}.")
    wrong = _miscounted(numbers, found.numbers)
    if found.value != AIM:
        wrong.append(f"makes {found.value}, not {AIM}")
    return Verdict(score=0.0, reason=f"`{expression[:80]}` {' and '.join(wrong)}.") if wrong else Verdict(score=1.0)


def expression_in(answer: str) -> str:
    """The expression that an answer ends with, without what it is said to make."""
    short = _WRAPPED.sub("*", final_answer(answer)).translate(SIGNS)
    return short.partition("=")[0].strip(" \t$`*.,:;\"'")


async def verify(conversation: Sequence[Message], answer: str, ask: Ask) -> Verdict:
    """The check of an answer to `question`; asks no model."""
    numbers = numbers_in(turns.question(conversation))
    if not numbers:
        return Verdict(score=0.0, reason="The question gives no numbers; it reads `Numbers: 4 9 10 13`.")
    return judge(numbers, answer)


def _miscounted(given: Sequence[int], used: Sequence[int]) -> list[str]:
    """What is wrong with the numbers used, one phrase for each number."""
    have, took = Counter(given), Counter(used)
    wrong = []
    for number in sorted(have | took):
        if number not in have:
            wrong.append(f"uses {number}, which is not given")
        elif not took[number]:
            wrong.append(f"does not use {number}")
        elif took[number] != have[number]:
            wrong.append(f"uses {number} {_times(took[number])}, given {_times(have[number])}")
    return wrong


def _times(count: int) -> str:
    return {1: "once", 2: "twice"}.get(count, f"{count} times")
