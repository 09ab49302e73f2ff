"""Fits a start to a wanted number of positions: those kept that real prompts attend to most.

Axes: L layer, H KV head, N virtual position, D head dimension.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from foreword.engine import Row
from foreword.errors import TuningError
from foreword.prefix.header import Geometry
from foreword.prefix.rotary import rotate
from foreword.tuning.initialisation import Start, StartContext

LOOKED_AT = 16
"""Prompts whose attention is measured."""
SINK = 1


def fit_positions(context: StartContext, start: Start) -> Start:
    """The start with `context.positions` positions, or unchanged where none are wanted.

    Raises:
        TuningError: the start has fewer positions than wanted.
    """
    wanted = context.positions
    if wanted is None or wanted == start.positions:
        return start
    if wanted > start.positions:
        raise TuningError(
            f"{wanted} positions are wanted, but this start has {start.positions}. Give a longer text or more examples "
            "(`--initialisation few-shot:8`), or lower `--positions`."
        )
    mass_LHN = context.engine.prefix_attention(_prompts(context, start), start.key_LHND, start.value_LHND)
    kept_LHK = most_attended(mass_LHN, wanted)
    return replace(
        start,
        key_LHND=close_gaps(take(start.key_LHND, kept_LHK), kept_LHK, context.engine.geometry),
        value_LHND=take(start.value_LHND, kept_LHK),
    )


def most_attended(mass_LHN: Tensor, keep: int) -> Tensor:
    """Indices of the sink and of the positions with the largest mass, in order, chosen per layer and head: L H K.

    The selection by accumulated attention of H2O (Zhang et al. 2023, §4) and SnapKV (Li et al. 2024, §3).
    """
    ranked = mass_LHN.clone()
    ranked[:, :, :SINK] = float("inf")
    return ranked.topk(keep, dim=-1).indices.sort(dim=-1).values


def take(tensor_LHND: Tensor, kept_LHK: Tensor) -> Tensor:
    """The chosen positions of each layer and head."""
    return tensor_LHND.gather(2, kept_LHK[..., None].expand(-1, -1, -1, tensor_LHND.shape[3]))


def close_gaps(key_LHKD: Tensor, kept_LHK: Tensor, geometry: Geometry) -> Tensor:
    """Keys turned so that the kept positions follow one another.

    Absolute position embeddings cannot be turned; there the keys stay as they are and training makes up for it.
    """
    if not geometry.rotary:
        return key_LHKD
    return rotate(key_LHKD, geometry, torch.arange(kept_LHK.shape[2], device=kept_LHK.device) - kept_LHK)


def _prompts(context: StartContext, start: Start) -> list[Row]:
    """Rows whose tokens do the looking: examples that are not themselves in the start and fit beside it."""
    rows: list[Row] = []
    for index, example in enumerate(context.train.examples):
        if len(rows) == LOOKED_AT:
            break
        prompt = context.engine.render(example.messages, prompt_format=start.prompt_format)
        target = context.engine.answer_ids(example.completions[0])
        if index not in start.used and start.positions + len(prompt) + len(target) <= context.engine.window:
            rows.append(Row(prompt=prompt, targets=(target,)))
    return rows
