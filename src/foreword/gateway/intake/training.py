"""Centroids from a few labelled lines, with a threshold that cross-validation chooses.

Each line is classified by centroids and lines without it (leave-one-out), so that no line speaks for itself. The threshold is then one
of two:

- with lines of the task type `default`, which are examples of what belongs nowhere: the one at which the mean of two shares is highest,
  that of lines that get their type and that of `default` lines that get none; of those at which no more than a fifth of the rightly
  classified lines falls short;
- without: the one that at most the share `missed` of the rightly classified lines falls short of.

How many lines of a type that was never shown would be taken for another one is told too: each type is left out once.

Axes: N line, C task type, D dimension.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from foreword.errors import ConfigError, DataError
from foreword.gateway.intake.centroids import CentroidFile
from foreword.gateway.path_settings import DEFAULT_TASK
from foreword.gateway.question import excerpt
from foreword.retrieval.embedder import Embedder

LEAST_LINES = 2
MOST_CONFUSED = 10
MOST_KEPT = 2_000
"""Lines whose vectors are kept, of all types together, so that a comparison stays short."""
LEAST_KEPT = 5
"""Of each type, however many types there are."""
MOST_LOST = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """What came of a training. Shares are of lines, each classified by centroids that were made without it.

    Attributes:
        accuracy: lines that get their own type, with the threshold; of `default`, none. `nearest` without the threshold.
        by_label: accuracy of each type.
        unlike: `default` lines that get no type; None where there are none.
        unseen: lines that get no type where their own type was left out altogether; None with one type only.
        confused: (own type, given type, lines), the commonest first.
    """

    file: CentroidFile
    lines: int
    accuracy: float
    nearest: float
    by_label: dict[str, float]
    unlike: float | None
    unseen: float | None
    confused: tuple[tuple[str, str, int], ...]


def train(texts: Sequence[str], labels: Sequence[str], embedder: Embedder, *, missed: float = 0.05) -> Training:
    """Trains on lines.

    Args:
        missed: see above; without `default` lines.

    Raises:
        ConfigError: `missed` is no share.
        DataError: a type has too few lines, a line says nothing to the embedder, or there is nothing but `default`.
    """
    if not 0 <= missed < 1:
        raise ConfigError(f"`missed` must be at least 0 and below 1; got {missed}.")
    vectors_ND = embedder.embed([excerpt(text) for text in texts])
    _check(vectors_ND, labels)
    names = tuple(sorted(set(labels) - {DEFAULT_TASK}))
    place_N = np.array([names.index(label) if label in names else -1 for label in labels])
    sums_CD = np.stack([vectors_ND[place_N == place].sum(axis=0) for place in range(len(names))])
    most = max(LEAST_KEPT, MOST_KEPT // len(names))
    kept = [np.flatnonzero(place_N == place)[:most] for place in range(len(names))]
    similarities_NC = _left_out(vectors_ND, place_N, sums_CD, kept)
    threshold = _threshold(similarities_NC, place_N, missed)
    centroids_CD = sums_CD / np.linalg.norm(sums_CD, axis=1, keepdims=True)
    counts = Counter(labels)
    found = _measured(similarities_NC, place_N, names, threshold)
    file = CentroidFile(
        embedder=embedder.name,
        labels=names,
        lines=tuple(counts[name] for name in names),
        centroids=_written(centroids_CD),
        vectors=tuple(_written(vectors_ND[lines]) for lines in kept),
        threshold=threshold,
        measured={"lines": len(texts), "accuracy": found["accuracy"], "unlike": found["unlike"], "unseen": found["unseen"]},
    )
    return Training(file=file, lines=len(texts), **found)


def _check(vectors_ND: np.ndarray, labels: Sequence[str]) -> None:
    silent = np.flatnonzero(~vectors_ND.any(axis=1))
    if len(silent):
        raise DataError(f"Line {silent[0] + 1} of the training lines says nothing to the embedder. Leave it out, or write words.")
    counts = Counter(label for label in labels if label != DEFAULT_TASK)
    if not counts:
        raise DataError(f"No line has a task type other than `{DEFAULT_TASK}`. Give a few lines of each type.")
    few = [label for label, count in counts.items() if count < LEAST_LINES]
    if few:
        raise DataError(
            f"The task type `{few[0]}` has one line, and a line cannot be tried without another. Give it {LEAST_LINES} or more."
        )


def _written(vectors_ND: np.ndarray) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(round(float(value), 5) for value in row) for row in vectors_ND)


def _left_out(vectors_ND: np.ndarray, place_N: np.ndarray, sums_CD: np.ndarray, kept: Sequence[np.ndarray]) -> np.ndarray:
    """Likeness N C to each type, as `Centroids` has it; to the own type, as it is without the line."""
    similarities_NC = vectors_ND @ (sums_CD / np.linalg.norm(sums_CD, axis=1, keepdims=True)).T
    for number, place in enumerate(place_N):
        if place >= 0:
            rest_D = sums_CD[place] - vectors_ND[number]
            similarities_NC[number, place] = vectors_ND[number] @ rest_D / max(float(np.linalg.norm(rest_D)), 1e-9)
    nearest_NC = np.empty_like(similarities_NC)
    for place, lines in enumerate(kept):
        similarities_NM = vectors_ND @ vectors_ND[lines].T
        similarities_NM[lines, np.arange(len(lines))] = -1
        nearest_NC[:, place] = similarities_NM.max(axis=1)
    return (similarities_NC + nearest_NC) / 2


def _threshold(similarities_NC: np.ndarray, place_N: np.ndarray, missed: float) -> float:
    best_N, nearest_N = similarities_NC.max(axis=1), similarities_NC.argmax(axis=1)
    right_N = best_N[(place_N >= 0) & (nearest_N == place_N)]
    unlike_N = best_N[place_N < 0]
    if not len(right_N):
        raise DataError("No line is nearest to its own task type's others. Give lines that tell the types apart.")
    if not len(unlike_N):
        # A little below, so that a line at the threshold stays on its side when it is computed again.
        return round(float(np.quantile(right_N, missed)) - 1e-4, 4)
    cuts = np.unique(np.concatenate([right_N, unlike_N]))
    between = np.concatenate([(cuts[1:] + cuts[:-1]) / 2, cuts[:1] - 1e-3])
    between = between[between <= np.quantile(right_N, MOST_LOST)]
    own = int((place_N >= 0).sum())
    gains = [(right_N >= cut).sum() / own + (unlike_N < cut).mean() for cut in between]
    return round(float(between[int(np.argmax(gains))]), 4)


def _measured(similarities_NC: np.ndarray, place_N: np.ndarray, names: tuple[str, ...], threshold: float) -> dict:
    best_N, nearest_N = similarities_NC.max(axis=1), similarities_NC.argmax(axis=1)
    given_N = np.where(best_N >= threshold, nearest_N, -1)
    own_N = place_N >= 0
    pairs = Counter((names[place], names[given]) for place, given in zip(place_N[own_N], nearest_N[own_N], strict=True) if place != given)
    unseen = None
    if len(names) > 1:
        others_NC = similarities_NC[own_N].copy()
        others_NC[np.arange(len(others_NC)), place_N[own_N]] = -1
        unseen = float((others_NC.max(axis=1) < threshold).mean())
    return {
        "accuracy": float((given_N == place_N).mean()),
        "nearest": float((nearest_N[own_N] == place_N[own_N]).mean()),
        "by_label": {name: float((given_N[place_N == place] == place).mean()) for place, name in enumerate(names)},
        "unlike": None if own_N.all() else float((given_N[~own_N] < 0).mean()),
        "unseen": unseen,
        "confused": tuple((own, given, count) for (own, given), count in pairs.most_common(MOST_CONFUSED)),
    }
