"""Calls of tools: the answer makes just the calls that are wanted, with arguments that are accepted.

A reference is JSON as the Berkeley Function-Calling Leaderboard has it (Patil et al. 2025), and is compared as its checker does: a list of
`{name: {argument: [accepted values]}}`, one for each call, in any order; where an empty text is accepted, the argument may be left out; an
empty list wants no call. The answer may be in any of the forms that `foreword.prompting.tool_calls` reads.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from foreword.errors import EvaluationError
from foreword.evaluate.scorer import Outcome, Score, mean_score
from foreword.prompting import tool_calls

_LEFT_OUT = re.compile(r"[ ,./\-_*^]")

Call = tuple[str, Mapping[str, Any]]
"""A name, and the arguments that were given."""


def score(outcome: Outcome) -> Score:
    """0..1; each row is 0 or 1.

    Raises:
        EvaluationError: a reference is not of this form.
    """
    pairs = enumerate(zip(outcome.answers, outcome.references, strict=True))
    return mean_score(np.array([_right(row, answer, references) for row, (answer, references) in pairs]))


def calls_in(answer: str) -> list[Call]:
    """The calls that an answer makes; arguments that cannot be read are none."""
    found = []
    for step in tool_calls.parse_calls(answer):
        try:
            arguments = json.loads(step.arguments or "{}")
        except (ValueError, RecursionError):
            arguments = None
        found.append((step.tool or "", arguments if isinstance(arguments, Mapping) else {"": step.arguments}))
    return found


def are_accepted(given: Sequence[Call], wanted: Sequence[Mapping[str, Mapping[str, Sequence[Any]]]]) -> bool:
    """Whether the calls are those that are wanted, each once, in any order."""
    left = list(given)
    if len(left) != len(wanted):
        return False
    for call in wanted:
        place = next((place for place, one in enumerate(left) if is_accepted(one, call)), None)
        if place is None:
            return False
        left.pop(place)
    return True


def is_accepted(given: Call, wanted: Mapping[str, Mapping[str, Sequence[Any]]]) -> bool:
    """Whether one call is the wanted one: its name, all arguments that must be given, and no others."""
    name, arguments = given
    return any(_name(name) == _name(wanted_name) and _object(arguments, accepted) for wanted_name, accepted in wanted.items())


def _right(row: int, answer: str, references: Sequence[str]) -> float:
    try:
        wanted = [json.loads(reference) for reference in references]
        return float(any(are_accepted(calls_in(answer), one) for one in wanted))
    except (ValueError, TypeError, AttributeError) as error:
        raise EvaluationError(
            f"The scorer `tool-call` needs references such as "
            f'`[{{"add": {{"a": [1], "b": [2, ""]}}}}]`; example {row} has {references[0][:80]!r} ({error}).'
        ) from None


def _object(given: Mapping[str, Any], accepted: Mapping[str, Sequence[Any]]) -> bool:
    return (
        isinstance(given, Mapping)
        and all(name in accepted and any(_same(value, one) for one in accepted[name]) for name, value in given.items())
        and all(name in given or not values or "" in values for name, values in accepted.items())
    )


def _same(given: Any, accepted: Any) -> bool:
    """Texts by their letters and digits, numbers by value, lists item by item; inside an object every value is a list of accepted ones."""
    if isinstance(accepted, Mapping):
        return _object(given, accepted)
    if isinstance(accepted, list):
        return isinstance(given, list) and len(given) == len(accepted) and all(map(_same, given, accepted))
    if isinstance(accepted, str):
        return isinstance(given, str) and _letters(given) == _letters(accepted)
    if isinstance(accepted, bool) or isinstance(given, bool):
        return given is accepted
    return isinstance(given, int | float | None) and given == accepted


def _letters(text: str) -> str:
    return _LEFT_OUT.sub("", text).lower().replace("'", '"')


def _name(name: str) -> str:
    # Model APIs take no dots, so many a model has learned to write none.
    return name.replace(".", "_")
