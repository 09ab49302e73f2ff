"""Macro-F1: the F1 of each class on its own, then their plain mean, so that a rare class weighs as much as a common one.

F1 of a class is 2·TP / (2·TP + FP + FN). A class that occurs neither among the wanted nor among the given labels has no F1 and
is left out of the mean; this matters when rows are resampled. An answer that is no label is a miss for the wanted class and a
false alarm for none. A row with several acceptable labels counts as the one that was answered, else as its first.
"""

from __future__ import annotations

import numpy as np

from foreword.evaluate.scorer import Outcome, Score, corpus_score
from foreword.evaluate.scorers._labels import normal

JUDGES_ROWS = False


def score(outcome: Outcome) -> Score:
    """0..1 over the corpus. The classes are the outcome's labels, or those wanted in it when it names none."""
    given = [normal(answer) for answer in outcome.answers]
    accepted = [[normal(reference) for reference in references] for references in outcome.references]
    wanted = [answer if answer in labels else labels[0] for answer, labels in zip(given, accepted, strict=True)]
    classes = {label: column for column, label in enumerate(dict.fromkeys([*map(normal, outcome.labels or ()), *wanted]))}
    no_class = len(classes)
    width = no_class + 1
    pairs = np.array([classes[want] * width + classes.get(answer, no_class) for want, answer in zip(wanted, given, strict=True)])

    def statistic(rows: np.ndarray) -> float:
        confusion = np.bincount(pairs[rows], minlength=width * width).reshape(width, width)
        hits = confusion.diagonal()[:no_class]
        occurrences = (confusion.sum(axis=0) + confusion.sum(axis=1))[:no_class]
        seen = occurrences > 0
        return float((2 * hits[seen] / occurrences[seen]).mean())

    return corpus_score(statistic, len(outcome))
