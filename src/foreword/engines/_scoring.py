"""How probable given words are, as plain numbers. Axes: L layer, H KV head, N virtual position, D head dimension."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from foreword.engine import Progress, Row

if TYPE_CHECKING:
    from torch import Tensor

    from foreword.engine import Differentiable

ByTarget = tuple[tuple[float, ...], ...]
"""Log-probabilities of one row's targets, token by token."""


def log_probs(
    engine: Differentiable,
    rows: Sequence[Row],
    key_LHND: Tensor | None,
    value_LHND: Tensor | None,
    *,
    most_tokens: int,
    progress: Progress | None = None,
) -> list[ByTarget]:
    """Log-probability of every token of every target behind a prefix, in the order of the rows; computed in groups of like length."""
    found: list[ByTarget] = [()] * len(rows)
    for group in engine.batches(rows, most_tokens=most_tokens):
        with torch.inference_mode():
            flat = engine.target_log_probs([rows[index] for index in group], key_LHND, value_LHND).tolist()
        place = 0
        for index in group:
            targets = []
            for target in rows[index].targets:
                targets.append(tuple(flat[place : place + len(target)]))
                place += len(target)
            found[index] = tuple(targets)
        if progress is not None:
            progress(len(group))
    return found
