"""Game of 24: the answer's expression makes 24 of the numbers in the prompt, each used once, in exact arithmetic.

Many expressions are right, so the references are not looked at.
"""

from __future__ import annotations

import numpy as np

from foreword.errors import EvaluationError
from foreword.evaluate.scorer import Outcome, Score, mean_score
from foreword.prompting.verifiers import game24


def score(outcome: Outcome) -> Score:
    """0..1; each row is 0 or 1.

    Raises:
        EvaluationError: a prompt gives no numbers.
    """
    pairs = zip(outcome.prompts, outcome.answers, strict=True)
    return mean_score(np.array([_right(row, prompt, answer) for row, (prompt, answer) in enumerate(pairs)]))


def _right(row: int, prompt: str, answer: str) -> float:
    numbers = game24.numbers_in(prompt)
    if not numbers:
        raise EvaluationError(
            f"The scorer `game24` needs prompts that give numbers as in `Numbers: 4 9 10 13`; example {row} has {prompt[:80]!r}. "
            "Mend the row or choose another scorer."
        )
    return game24.judge(numbers, answer).score
