"""When two label texts are the same, and which label a row wants."""

from __future__ import annotations

import numpy as np

from foreword.errors import EvaluationError
from foreword.evaluate.scorer import Outcome


def normal(label: str) -> str:
    """A label as it is compared: without outer white space, without case."""
    return label.strip().casefold()


def hits(outcome: Outcome) -> np.ndarray:
    """Shape (examples,), bool: whether the answer is one of the row's references, as labels."""
    pairs = zip(outcome.answers, outcome.references, strict=True)
    return np.array([normal(answer) in {normal(reference) for reference in references} for answer, references in pairs])


def likelihood_hits(outcome: Outcome, scores: np.ndarray) -> np.ndarray:
    """Shape (examples,), bool: whether the label with the highest of `scores` (examples, labels) is one the row wants.

    Raises:
        EvaluationError: a score is not a number, or a row wants a label that the task does not have.
    """
    labels = [normal(label) for label in outcome.labels or ()]
    bad = np.flatnonzero(np.isnan(scores).any(axis=1))
    if bad.size:
        raise EvaluationError(f"The label log-probabilities of example {bad[0]} are not numbers ({bad.size} such rows).")
    for row, references in enumerate(outcome.references):
        unknown = [reference for reference in references if normal(reference) not in labels]
        if unknown:
            raise EvaluationError(
                f"Example {row} wants the label {unknown[0]!r}, which is not among the task's labels ({', '.join(outcome.labels or ())}). "
                "Add it to `labels` or mend the row."
            )
    chosen = scores.argmax(axis=1)
    return np.array([labels[column] in map(normal, wanted) for column, wanted in zip(chosen, outcome.references, strict=True)])


def label_log_probs(outcome: Outcome, *, scorer: str) -> np.ndarray:
    """The outcome's `label_log_probs`.

    Raises:
        EvaluationError: it has none.
    """
    if outcome.label_log_probs is None or not outcome.labels:
        raise EvaluationError(
            f"The scorer `{scorer}` needs the log-likelihood of each label, and this outcome has none. "
            "Use it on a classification task, with an engine that gives target log-probabilities."
        )
    return np.asarray(outcome.label_log_probs, dtype=np.float64)
