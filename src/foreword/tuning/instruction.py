"""The instruction that a prefix starts from when the user gives none."""

from __future__ import annotations

from foreword.data.dataset import Dataset


def instruction_for(train: Dataset, given: str | None) -> str:
    """What the model is told at the start of the first guess."""
    if given:
        return given
    if train.labels:
        *rest, last = train.labels
        return f"Classify the user's text as {', '.join(rest)} or {last}. Answer with the label only."
    return "Answer each message exactly as in the examples."
