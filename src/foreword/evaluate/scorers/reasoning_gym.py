"""Reasoning-gym: what the package's own verifier says of an answer. Rows are those of the task `reasoning-gym`.

Many of the verifiers give part of a point to an answer that holds the right one among other words; a success rule takes whole points alone.
The verifier is given the answer as it is and its final answer (after `Answer:`, or the last line), and the better score counts: some
problems want several lines.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np

from foreword.errors import EvaluationError
from foreword.evaluate.scorer import Outcome, Score, mean_score, require
from foreword.prompting.final_answer import final_answer

Judge = Callable[[str, dict[str, Any]], float]


def score(outcome: Outcome) -> Score:
    """0..1; each row is what the verifier gives, which for some problems may lie between.

    Raises:
        EvaluationError: the package is not installed, or a row is not one of the task's.
    """
    gym = require("reasoning_gym", package="reasoning-gym", scorer="reasoning-gym")
    judges: dict[str, Judge] = {}
    values = []
    for row, (answer, references) in enumerate(zip(outcome.answers, outcome.references, strict=True)):
        problem, entry = _entry(row, references)
        if problem not in judges:
            judges[problem] = gym.get_score_answer_fn(problem)
        values.append(max(_judged(judges[problem], text, entry) for text in dict.fromkeys((answer.strip(), final_answer(answer)))))
    return mean_score(np.array(values))


def _judged(judge: Judge, text: str, entry: dict[str, Any]) -> float:
    try:
        return float(judge(text, entry))
    except Exception:  # a verifier that a strange answer makes fail has not found it right
        return 0.0


def _entry(row: int, references: tuple[str, ...]) -> tuple[str, dict[str, Any]]:
    try:
        kept = json.loads(references[-1])
        return kept["problem"], kept["entry"]
    except (ValueError, KeyError, TypeError) as error:
        raise EvaluationError(
            f"Example {row} has no entry of `reasoning-gym` as its last reference. The scorer is for the task `reasoning-gym:NAME`."
        ) from error
