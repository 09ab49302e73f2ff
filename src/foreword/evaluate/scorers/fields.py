"""Fields: for answers of the form `KEY: value | KEY: value | ... | KEY: free text`, the share of short fields that are exactly right.

The short fields are all of the reference's fields but the last, which is free text and not judged here. A key is one word in
capitals (digits, `_` and `-` may follow); a bar that no key follows belongs to the value before it.
"""

from __future__ import annotations

import re

import numpy as np

from foreword.errors import EvaluationError
from foreword.evaluate.scorer import Outcome, Score, mean_score

Field = tuple[str, str]

_BETWEEN_FIELDS = re.compile(r"\|(?=\s*[A-Z][A-Z0-9_-]*\s*:)")
_FIELD = re.compile(r"([A-Z][A-Z0-9_-]*)\s*:(.*)", re.DOTALL)


def score(outcome: Outcome) -> Score:
    """0..1, the mean over rows; with several references a row counts the one that it meets best.

    Order does not matter; case does. A field that the answer lacks is wrong, and so is one that it gives more than once.

    Raises:
        EvaluationError: a reference has fewer than two fields, or one of its keys twice.
    """
    shares = []
    for row, (answer, references) in enumerate(zip(outcome.answers, outcome.references, strict=True)):
        given = parse(answer)
        shares.append(max(_share(given, _short_fields(reference, row)) for reference in references))
    return mean_score(np.array(shares))


def parse(text: str) -> list[Field]:
    """The (key, value) pairs of a text in order; a piece that does not begin with a key is left out."""
    matches = (_FIELD.fullmatch(piece.strip()) for piece in _BETWEEN_FIELDS.split(text))
    return [(match[1], match[2].strip()) for match in matches if match]


def _short_fields(reference: str, row: int) -> list[Field]:
    """All fields of a reference but the last."""
    fields = parse(reference)
    keys = [key for key, _ in fields]
    if len(fields) < 2 or len(set(keys)) < len(keys):
        raise EvaluationError(
            f"The scorer `fields` needs references of the form `KEY: value | KEY: free text`, with at least two fields and each key once; "
            f"example {row} has {reference[:80]!r}. Mend the row or choose another scorer."
        )
    return fields[:-1]


def _share(given: list[Field], wanted: list[Field]) -> float:
    """Share of the wanted fields that are given once and with exactly the wanted value."""
    right = sum([value for other, value in given if other == key] == [wanted_value] for key, wanted_value in wanted)
    return right / len(wanted)
