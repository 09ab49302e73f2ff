"""Number: the number that an answer comes to is that of a reference, exactly.

It is the last number after the mark of a final answer (`#### 72`, `\\boxed{72}`, `Answer: 72`), or without one the last number at all.
`$1,200.00` is 1200.
"""

from __future__ import annotations

import numpy as np

from foreword.errors import EvaluationError
from foreword.evaluate.scorer import Outcome, Score, mean_score
from foreword.prompting.final_answer import last_number, marked_answer


def score(outcome: Outcome) -> Score:
    """0..1; each row is 0 or 1.

    Raises:
        EvaluationError: a row has no reference with a number.
    """
    return mean_score(np.array([_right(row, answer, outcome.references[row]) for row, answer in enumerate(outcome.answers)]))


def number_of(text: str) -> str | None:
    """The number that a text comes to; None where it has none."""
    marked = marked_answer(text)
    found = None if marked is None else last_number(marked)
    return last_number(text) if found is None else found


def _right(row: int, answer: str, references: tuple[str, ...]) -> bool:
    wanted = {found for reference in references if (found := number_of(reference)) is not None}
    if not wanted:
        raise EvaluationError(f"Example {row} has no reference with a number, which the scorer `number` needs: {references[0][:80]!r}.")
    return number_of(answer) in wanted
