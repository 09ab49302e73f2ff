"""Lays prompts and their targets out as padded tensors, so that a prompt is computed once for all its targets.

A row reads [prompt, target 1 without its last token, target 2 without its last token, …]. A target attends to
the prefix, the prompt and itself, never to a sibling; its positions follow the prompt's as if it stood alone.

Axes: B row, T token, S prefix position then token.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from foreword.engine import Row

PROMPT, PADDING = 0, -1


@dataclass(frozen=True, slots=True, kw_only=True)
class PackedRows:
    """Rows as tensors.

    Attributes:
        token_ids_BT: input tokens, padded on the right.
        position_BT: positions, the prefix counted.
        segment_BT: 0 for the prompt, i for the i-th target, -1 for padding.
        source: for each target token, the flat B·T index whose hidden state predicts it.
        target: the target tokens, flat.
    """

    token_ids_BT: Tensor
    position_BT: Tensor
    segment_BT: Tensor
    source: Tensor
    target: Tensor

    def visible_BTS(self, prefix_positions: int) -> Tensor:
        """Which of the prefix's positions and the row's own tokens each token may attend to."""
        segment_BT, length = self.segment_BT, self.segment_BT.shape[1]
        earlier_TT = torch.ones(length, length, dtype=torch.bool, device=segment_BT.device).tril()
        mine, theirs = segment_BT[:, :, None], segment_BT[:, None, :]
        # A padding token sees padding before it, itself included, or its softmax would have nothing to sum.
        visible_BTT = earlier_TT & ((theirs == mine) | (theirs == PROMPT) & (mine != PADDING))
        return torch.cat([visible_BTT.new_ones(*segment_BT.shape, prefix_positions), visible_BTT], dim=-1)


def additive(visible: Tensor, dtype: torch.dtype) -> Tensor:
    """0 where visible, the dtype's most negative number elsewhere."""
    return torch.zeros(visible.shape, dtype=dtype, device=visible.device).masked_fill_(~visible, torch.finfo(dtype).min)


def pack(rows: Sequence[Row], *, prefix_positions: int, padding_id: int, device: torch.device) -> PackedRows:
    """Lays `rows` out; every prompt must have at least one token."""
    length = max(row.fed_tokens for row in rows)
    tokens, positions, segments, source, target = [], [], [], [], []
    for number, row in enumerate(rows):
        ids, position, segment = list(row.prompt), list(range(len(row.prompt))), [PROMPT] * len(row.prompt)
        for index, wanted in enumerate(row.targets, start=1):
            first = number * length + len(ids)
            source += [number * length + len(row.prompt) - 1, *range(first, first + len(wanted) - 1)][: len(wanted)]
            target += wanted
            ids += wanted[:-1]
            position += range(len(row.prompt), len(row.prompt) + len(wanted) - 1)
            segment += [index] * (len(wanted) - 1)
        missing = length - len(ids)
        tokens.append(ids + [padding_id] * missing)
        positions.append(position + [0] * missing)
        segments.append(segment + [PADDING] * missing)
    return PackedRows(
        token_ids_BT=torch.tensor(tokens, device=device),
        position_BT=torch.tensor(positions, device=device) + prefix_positions,
        segment_BT=torch.tensor(segments, device=device),
        source=torch.tensor(source, dtype=torch.long, device=device),
        target=torch.tensor(target, dtype=torch.long, device=device),
    )


def bucket(rows: Sequence[Row], *, most_tokens: int, group_overhead: int) -> list[list[int]]:
    """Groups row indices of like length so that padding and the number of groups together cost least.

    A group computes its size times its longest row, and starting one costs as much as `group_overhead` tokens; the
    best cut of the rows in order of length is found by dynamic programming. Longest first, so that a batch that does
    not fit in memory fails at once rather than late.

    Args:
        most_tokens: bound on a group, padding included; only a single row may exceed it.
        group_overhead: cost of one more group, in tokens.
    """
    order = sorted(range(len(rows)), key=lambda index: -rows[index].fed_tokens)
    lengths = [rows[index].fed_tokens for index in order]
    cost = [0.0] + [float("inf")] * len(order)
    cut = [0] * (len(order) + 1)
    for end in range(1, len(order) + 1):
        for first in range(end - 1, -1, -1):
            padded = (end - first) * lengths[first]
            if padded > most_tokens and end - first > 1:
                break
            if cost[first] + padded + group_overhead < cost[end]:
                cost[end], cut[end] = cost[first] + padded + group_overhead, first
    groups = []
    end = len(order)
    while end:
        groups.append(order[cut[end] : end])
        end = cut[end]
    return groups[::-1]
