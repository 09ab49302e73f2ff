"""How far a model behind a prefix is from the same model behind the whole text, as something to train on.

Axes: T target token, C candidate token, L layer, H KV head, N virtual position, D head dimension.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from foreword.engine import Row

if TYPE_CHECKING:
    from foreword.engine import Differentiable

CANDIDATES = 64
"""Tokens whose probabilities are compared one by one; all others count as one."""
SCORED_TOKENS = 1024
_LEAST = 1e-6
"""Floor of a probability that is found by subtraction."""

Taught = Mapping[Row, tuple[Tensor, Tensor]]
"""For each row, the teacher's likeliest tokens at each target and their log-probabilities, T C each."""


def teach(
    engine: Differentiable, rows: Sequence[Row], key_LHND: Tensor | None, value_LHND: Tensor | None, *, count: int = CANDIDATES
) -> dict[Row, tuple[Tensor, Tensor]]:
    """What the model says to each row behind the given keys and values, or behind none; in the rows' order."""
    taught: dict[Row, tuple[Tensor, Tensor]] = {}
    for group in engine.batches(rows, most_tokens=SCORED_TOKENS):
        several = [rows[index] for index in group]
        ids_TC, log_p_TC = engine.likeliest(several, key_LHND, value_LHND, count=count)
        lengths = [len(row.targets[0]) for row in several]
        taught |= zip(several, zip(ids_TC.split(lengths), log_p_TC.split(lengths), strict=True), strict=True)
    return {row: taught[row] for row in rows}


def divergence(teacher_TC: Tensor, student_TC: Tensor) -> Tensor:
    """KL(teacher ‖ student) at each target, in nats: T.

    Both are log-probabilities of the same candidates; all other tokens count as one. Merging tokens can only make a divergence smaller
    (the log sum inequality), so this is a lower bound of the one over the vocabulary.
    """
    probability_TC = teacher_TC.exp()
    rest_T = (1 - probability_TC.sum(-1)).clamp_min(_LEAST)
    student_rest_T = (1 - student_TC.exp().sum(-1)).clamp_min(_LEAST)
    return (probability_TC * (teacher_TC - student_TC)).sum(-1) + rest_T * (rest_T.log() - student_rest_T.log())


class Divergence:
    """An objective (see `foreword.tuning.objective`): the summed divergence of rows from what they were taught."""

    def __init__(self, taught: Taught) -> None:
        self._taught = taught

    def loss(self, engine: Differentiable, rows: Sequence[Row], key_LHND: Tensor, value_LHND: Tensor) -> Tensor:
        """Scalar, in nats."""
        ids_TC = torch.cat([self._taught[row][0] for row in rows])
        teacher_TC = torch.cat([self._taught[row][1] for row in rows])
        return divergence(teacher_TC, engine.log_probs_of(rows, ids_TC, key_LHND, value_LHND)).sum()


def mean_divergence(engine: Differentiable, taught: Taught, key_LHND: Tensor | None, value_LHND: Tensor | None) -> Tensor:
    """The mean divergence of each row, in nats per target token, behind the given keys and values: one number a row, in the rows' order."""
    rows = list(taught)
    found: dict[Row, Tensor] = {}
    with torch.inference_mode():
        for group in engine.batches(rows, most_tokens=SCORED_TOKENS):
            several = [rows[index] for index in group]
            ids_TC = torch.cat([taught[row][0] for row in several])
            teacher_TC = torch.cat([taught[row][1] for row in several])
            apart_T = divergence(teacher_TC, engine.log_probs_of(several, ids_TC, key_LHND, value_LHND))
            found |= zip(several, (part.mean() for part in apart_T.split([len(row.targets[0]) for row in several])), strict=True)
    return torch.stack([found[row] for row in rows])
