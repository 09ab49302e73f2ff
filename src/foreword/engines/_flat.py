"""Lays prompts and their targets out one after the other, without padding, and attends over them as a tree.

Every product with a weight then sees real tokens only. Attention alone gathers tokens into padded blocks: a row's *stem*
(its prompt, and its target where there is but one) and, where several targets share a prompt, one *branch* per target. A branch's
queries meet [prefix | stem] in one product and their own branch in another, so siblings never cost each other a score.

Axes: M flat token, B row, P stem slot, K branch, U branch slot, N prefix position, S = N + P, Q prefix of several, L layer, H query head
(KV head where L stands before it), G KV head, R query heads per KV head, D head dim.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from foreword.engine import Row
from foreword.engines._rows import additive
from foreword.errors import PrefixError

LARGEST_SCORES = 1 << 22
"""Scores per head above which stems without gradients take torch's fused kernel, which never holds them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FlatRows:
    """Rows as flat tensors.

    Attributes:
        token_ids_M: input tokens.
        position_M: positions, the prefix counted; each target's follow its prompt's.
        source: for each target token, the flat index whose hidden state predicts it.
        target: the target tokens, flat.
        stem_BP: flat index of each stem slot, M for padding.
        branch_BKU: flat index of each branch slot, M for padding; None where no prompt has several targets.
        place_M: where a token's slot stands in [stems | branches], flattened.
    """

    token_ids_M: Tensor
    position_M: Tensor
    source: Tensor
    target: Tensor
    stem_BP: Tensor
    branch_BKU: Tensor | None
    place_M: Tensor


def flatten(rows: Sequence[Row], *, prefix_positions: int, device: torch.device) -> FlatRows:
    """Lays `rows` out; every prompt must have at least one token."""
    tokens: list[int] = []
    positions: list[int] = []
    source: list[int] = []
    target: list[int] = []
    stems: list[list[int]] = []
    branches: list[list[list[int]]] = []
    for row in rows:
        start, length = len(tokens), len(row.prompt)
        tokens += row.prompt
        positions += range(prefix_positions, prefix_positions + length)
        parts: list[list[int]] = []
        for wanted in row.targets:
            first = len(tokens)
            fed = range(first, first + len(wanted) - 1)
            source += [start + length - 1, *fed][: len(wanted)]
            target += wanted
            tokens += wanted[:-1]
            positions += range(prefix_positions + length, prefix_positions + length + len(fed))
            if fed:
                parts.append(list(fed))
        stem = list(range(start, start + length))
        alone = len(parts) == 1
        stems.append(stem + parts[0] if alone else stem)
        branches.append([] if alone else parts)
    count = len(tokens)
    stem_BP = _padded(stems, max(map(len, stems)), count)
    most = max(map(len, branches))
    branch_BKU = None
    if most:
        longest = max(len(part) for parts in branches for part in parts)
        branch_BKU = torch.stack([_padded([*parts, *[[]] * (most - len(parts))], longest, count) for parts in branches])
    slots = stem_BP.flatten() if branch_BKU is None else torch.cat([stem_BP.flatten(), branch_BKU.flatten()])
    place = torch.empty(count + 1, dtype=torch.long)
    place[slots] = torch.arange(len(slots))
    return FlatRows(
        token_ids_M=torch.tensor(tokens, device=device),
        position_M=torch.tensor(positions, device=device),
        source=torch.tensor(source, dtype=torch.long, device=device),
        target=torch.tensor(target, dtype=torch.long, device=device),
        stem_BP=stem_BP.to(device),
        branch_BKU=None if branch_BKU is None else branch_BKU.to(device),
        place_M=place[:count].to(device),
    )


def share_out(rows: Sequence[Row], *, most_tokens: int) -> list[list[int]]:
    """Groups row indices, longest first, into as few groups as `most_tokens` allows; only a single row may exceed it.

    Without padding, like lengths matter to attention alone, and few large groups make the fastest products.
    """
    order = sorted(range(len(rows)), key=lambda index: -rows[index].fed_tokens)
    total = sum(row.fed_tokens for row in rows)
    share = total / max(1, -(-total // most_tokens))
    groups: list[list[int]] = []
    filled = 0
    for index in order:
        size = rows[index].fed_tokens
        if not groups or filled + size > most_tokens or filled >= share:
            groups.append([])
            filled = 0
        groups[-1].append(index)
        filled += size
    return groups


def check_prefix_of_row(rows: Sequence[Row], key_QLHND: Tensor | None, prefix_of_row: Sequence[int]) -> None:
    """Raises `PrefixError` unless every row is given one of the stacked prefixes."""
    if key_QLHND is None or key_QLHND.ndim != 5:
        shape = None if key_QLHND is None else tuple(key_QLHND.shape)
        raise PrefixError(f"`prefix_of_row` chooses among prefixes stacked along a first axis (Q L H N D); got keys of shape {shape}.")
    if len(prefix_of_row) != len(rows) or not all(0 <= prefix < len(key_QLHND) for prefix in prefix_of_row):
        raise PrefixError(
            f"`prefix_of_row` needs a number in 0..{len(key_QLHND) - 1} for each of {len(rows)} rows; got {list(prefix_of_row)[:10]}."
        )


def one_prefix_at_a_time(
    compute: Callable[[Sequence[Row], Tensor, Tensor], Tensor],
    rows: Sequence[Row],
    key_QLHND: Tensor,
    value_QLHND: Tensor,
    prefix_of_row: Sequence[int],
) -> Tensor:
    """What `compute(rows, key_LHND, value_LHND)` gives for every target token, called once for each prefix, in the rows' own order.

    For engines whose layers know a single prefix.
    """
    keys, values = key_QLHND.unbind(), value_QLHND.unbind()
    parts: dict[int, Tensor] = {}
    for prefix in dict.fromkeys(prefix_of_row):
        places = [place for place, own in enumerate(prefix_of_row) if own == prefix]
        flat = compute([rows[place] for place in places], keys[prefix], values[prefix])
        parts |= zip(places, flat.split([sum(map(len, rows[place].targets)) for place in places]), strict=True)
    return torch.cat([parts[place] for place in range(len(rows))])


def _padded(lists: Sequence[Sequence[int]], length: int, padding: int) -> Tensor:
    return torch.tensor([[*values, *[padding] * (length - len(values))] for values in lists], dtype=torch.long).view(len(lists), length)


class TreeAttention:
    """What every layer's attention needs to know about one batch of flat rows behind one prefix, or each behind its own of several."""

    def __init__(
        self,
        flat: FlatRows,
        key_LHND: Tensor | None,
        value_LHND: Tensor | None,
        *,
        dtype: torch.dtype,
        prefix_of_row: Sequence[int] | None = None,
    ) -> None:
        """Args: prefix_of_row: which prefix stands before each row; keys and values are then stacked, Q L H N D."""
        self.flat, self.dtype = flat, dtype
        # Taken apart once: the gradient of an index into the whole would be a tensor as large as the whole, for every layer.
        self._prefix = None if key_LHND is None or value_LHND is None else (key_LHND.unbind(-4), value_LHND.unbind(-4))
        self.positions = 0 if key_LHND is None else key_LHND.shape[-2]
        self.prefix_of_row_B = None if prefix_of_row is None else torch.tensor(prefix_of_row, device=flat.stem_BP.device)
        stem_BP, count = flat.stem_BP, len(flat.token_ids_M)
        stem, device = stem_BP.shape[1], stem_BP.device
        # Padding stands behind everything real, so a stem's causal mask hides it too.
        self.stem_mask_PS = additive(torch.ones(stem, self.positions + stem, dtype=torch.bool, device=device).tril(self.positions), dtype)
        self.branch_mask: Tensor | None = None
        if flat.branch_BKU is not None:
            rows, _, slots = flat.branch_BKU.shape
            shared_BS = F.pad(stem_BP < count, (self.positions, 0), value=True)
            own_UU = torch.ones(slots, slots, dtype=torch.bool, device=device).tril()
            visible = torch.cat([shared_BS[:, None].expand(-1, slots, -1), own_UU.expand(rows, -1, -1)], dim=-1)
            self.branch_mask = additive(visible, dtype)[:, None, None]

    def __call__(self, layer: int, query_1HMD: Tensor, key_1GMD: Tensor, value_1GMD: Tensor, scale: float) -> Tensor:
        """One layer's attention: 1 M H D."""
        if self._prefix is None:
            empty_GND = key_1GMD.new_zeros(key_1GMD.shape[1], 0, key_1GMD.shape[3])
            prefix = (empty_GND, empty_GND)
        else:
            prefix = (self._prefix[0][layer], self._prefix[1][layer])
        return _Tree.apply(query_1HMD, key_1GMD, value_1GMD, *prefix, self, scale)


class _Shapes:
    """Moves tensors between the flat layout and the blocks of one batch; a method and its inverse stand together."""

    def __init__(self, flat: FlatRows, heads: int, kv_heads: int) -> None:
        self.flat = flat
        self.G, self.R = kv_heads, heads // kv_heads
        self.B, self.P = flat.stem_BP.shape
        self.K, self.U = (0, 0) if flat.branch_BKU is None else flat.branch_BKU.shape[1:]

    def stem_queries(self, x_MHD: Tensor) -> Tensor:
        """B·G, R·P, D."""
        blocks = _taken(x_MHD, self.flat.stem_BP).view(self.B, self.P, self.G, self.R, -1)
        return blocks.permute(0, 2, 3, 1, 4).reshape(self.B * self.G, self.R * self.P, -1)

    def flat_stem_queries(self, x: Tensor) -> Tensor:
        """B·P, H, D."""
        return x.view(self.B, self.G, self.R, self.P, -1).permute(0, 3, 1, 2, 4).reshape(self.B * self.P, self.G * self.R, -1)

    def stem_keys(self, x_MGD: Tensor, prefix: Tensor, prefix_of_row_B: Tensor | None) -> Tensor:
        """B·G, S, D: the prefix (G N D for all rows, or Q G N D and each row's own), then the stem."""
        stem_BGPD = _taken(x_MGD, self.flat.stem_BP).view(self.B, self.P, self.G, -1).transpose(1, 2)
        prefix = prefix.to(x_MGD.dtype)
        prefix_BGND = prefix.expand(self.B, -1, -1, -1) if prefix_of_row_B is None else prefix.index_select(0, prefix_of_row_B)
        both = torch.cat([prefix_BGND, stem_BGPD], dim=2)
        return both.view(self.B * self.G, -1, both.shape[-1])

    def flat_stem_keys(self, x: Tensor) -> Tensor:
        """B·P, G, D, the prefix left out."""
        stem_BGPD = x.view(self.B, self.G, -1, x.shape[-1])[:, :, -self.P :]
        return stem_BGPD.transpose(1, 2).reshape(self.B * self.P, self.G, -1)

    def prefix_part(self, x: Tensor, prefix_of_row_B: Tensor | None, prefixes: int) -> Tensor:
        """G, N, D in float32, or Q, G, N, D of `prefixes`: summed over the rows that share a prefix."""
        prefix_BGND = x.view(self.B, self.G, -1, x.shape[-1])[:, :, : -self.P]
        if prefix_of_row_B is None:
            return prefix_BGND.sum(0, dtype=torch.float32)
        sums_QGND = torch.zeros(prefixes, *prefix_BGND.shape[1:], dtype=torch.float32, device=x.device)
        return sums_QGND.index_add_(0, prefix_of_row_B, prefix_BGND.float())

    def branch_queries(self, x_MHD: Tensor) -> Tensor:
        """B·G, K·R·U, D."""
        blocks = _taken(x_MHD, self.flat.branch_BKU).view(self.B, self.K, self.U, self.G, self.R, -1)
        return blocks.permute(0, 3, 1, 4, 2, 5).reshape(self.B * self.G, self.K * self.R * self.U, -1)

    def flat_branch_queries(self, x: Tensor) -> Tensor:
        """B·K·U, H, D."""
        blocks = x.view(self.B, self.G, self.K, self.R, self.U, -1).permute(0, 2, 4, 1, 3, 5)
        return blocks.reshape(self.B * self.K * self.U, self.G * self.R, -1)

    def branch_keys(self, x_MGD: Tensor) -> Tensor:
        """B·G·K, U, D."""
        blocks = _taken(x_MGD, self.flat.branch_BKU).view(self.B, self.K, self.U, self.G, -1)
        return blocks.permute(0, 3, 1, 2, 4).reshape(self.B * self.G * self.K, self.U, -1)

    def flat_branch_keys(self, x: Tensor) -> Tensor:
        """B·K·U, G, D."""
        blocks = x.view(self.B, self.G, self.K, self.U, -1).permute(0, 2, 3, 1, 4)
        return blocks.reshape(self.B * self.K * self.U, self.G, -1)

    def by_branch(self, x: Tensor) -> Tensor:
        """B·G, K·R·U, … as B·G·K, R·U, …"""
        return x.reshape(self.B * self.G * self.K, self.R * self.U, -1)

    def together(self, x: Tensor) -> Tensor:
        """The inverse of `by_branch`."""
        return x.view(self.B * self.G, self.K * self.R * self.U, -1)

    def gathered(self, *parts: Tensor) -> Tensor:
        """Stem slots, then branch slots, back in flat order: 1, M, heads, D."""
        slots = parts[0] if len(parts) == 1 else torch.cat(parts)
        return slots.index_select(0, self.flat.place_M)[None]


def _taken(x_MHD: Tensor, index: Tensor | None) -> Tensor:
    assert index is not None
    return x_MHD.index_select(0, index.flatten())


def _flat_with_padding(x_1HMD: Tensor) -> Tensor:
    """M + 1, heads, D: a row of zeros behind the tokens, for padding to point at."""
    x_MHD = x_1HMD[0].transpose(0, 1)
    return torch.cat([x_MHD, x_MHD.new_zeros(1, *x_MHD.shape[1:])])


class _Tree(torch.autograd.Function):
    """Softmax attention over stems and branches, with the probabilities kept for the backward pass."""

    @staticmethod
    def forward(
        ctx: Any,
        query_1HMD: Tensor,
        key_1GMD: Tensor,
        value_1GMD: Tensor,
        prefix_key: Tensor,
        prefix_value: Tensor,
        tree: TreeAttention,
        scale: float,
    ) -> Tensor:
        shapes = _Shapes(tree.flat, query_1HMD.shape[1], key_1GMD.shape[1])
        query, key, value = (_flat_with_padding(x) for x in (query_1HMD * scale, key_1GMD, value_1GMD))
        stem_query = shapes.stem_queries(query)
        stem_key, stem_value = (
            shapes.stem_keys(x, prefix, tree.prefix_of_row_B) for x, prefix in ((key, prefix_key), (value, prefix_value))
        )
        ctx.tree, ctx.scale, ctx.shapes, ctx.prefixes = tree, scale, shapes, len(prefix_key)
        if not any(ctx.needs_input_grad) and shapes.P * stem_key.shape[1] > LARGEST_SCORES:
            stem_weights, stem_out = None, _fused(stem_query, stem_key, stem_value, tree, shapes)
        else:
            stem_weights = _softmax(torch.bmm(stem_query, stem_key.transpose(1, 2)), tree.stem_mask_PS)
            stem_out = torch.bmm(stem_weights, stem_value)
        kept = [stem_query, stem_key, stem_value, stem_weights]
        out = [shapes.flat_stem_queries(stem_out)]
        if tree.branch_mask is not None:
            branch_query, branch_key, branch_value = shapes.branch_queries(query), shapes.branch_keys(key), shapes.branch_keys(value)
            shared = torch.bmm(branch_query, stem_key.transpose(1, 2))
            own = shapes.together(torch.bmm(shapes.by_branch(branch_query), branch_key.transpose(1, 2)))
            branch_weights = _softmax(torch.cat([shared, own], dim=-1), tree.branch_mask, rows=shapes.B)
            split = stem_key.shape[1]
            branch_out = torch.bmm(branch_weights[..., :split], stem_value)
            branch_out += shapes.together(torch.bmm(shapes.by_branch(branch_weights[..., split:]), branch_value))
            kept += [branch_query, branch_key, branch_value, branch_weights]
            out.append(shapes.flat_branch_queries(branch_out))
        ctx.save_for_backward(*kept)
        return shapes.gathered(*out)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        shapes: _Shapes = ctx.shapes
        grad_M = _flat_with_padding(grads[0].transpose(1, 2))
        stem_query, stem_key, stem_value, stem_weights, *branch = ctx.saved_tensors
        grad_out = shapes.stem_queries(grad_M)
        grad_value = torch.bmm(stem_weights.transpose(1, 2), grad_out)
        grad_scores = _softmax_gradient(torch.bmm(grad_out, stem_value.transpose(1, 2)), stem_weights)
        grad_query = torch.bmm(grad_scores, stem_key)
        grad_key = torch.bmm(grad_scores.transpose(1, 2), stem_query)
        queries = [shapes.flat_stem_queries(grad_query)]
        own_keys, own_values = [], []
        if branch:
            query, key, value, weights = branch
            split = stem_key.shape[1]
            grad_out = shapes.branch_queries(grad_M)
            by_branch = shapes.by_branch(grad_out)
            own = shapes.together(torch.bmm(by_branch, value.transpose(1, 2)))
            grad_scores = _softmax_gradient(torch.cat([torch.bmm(grad_out, stem_value.transpose(1, 2)), own], dim=-1), weights)
            shared_scores, own_scores = grad_scores[..., :split], shapes.by_branch(grad_scores[..., split:])
            grad_value = torch.baddbmm(grad_value, weights[..., :split].transpose(1, 2), grad_out)
            grad_key = torch.baddbmm(grad_key, shared_scores.transpose(1, 2), query)
            grad_query = torch.bmm(shared_scores, stem_key) + shapes.together(torch.bmm(own_scores, key))
            queries.append(shapes.flat_branch_queries(grad_query))
            own_keys.append(shapes.flat_branch_keys(torch.bmm(own_scores.transpose(1, 2), shapes.by_branch(query))))
            own_weights = shapes.by_branch(weights[..., split:])
            own_values.append(shapes.flat_branch_keys(torch.bmm(own_weights.transpose(1, 2), by_branch)))
        return (
            shapes.gathered(*queries).transpose(1, 2) * ctx.scale,
            shapes.gathered(shapes.flat_stem_keys(grad_key), *own_keys).transpose(1, 2),
            shapes.gathered(shapes.flat_stem_keys(grad_value), *own_values).transpose(1, 2),
            shapes.prefix_part(grad_key, ctx.tree.prefix_of_row_B, ctx.prefixes),
            shapes.prefix_part(grad_value, ctx.tree.prefix_of_row_B, ctx.prefixes),
            None,
            None,
        )


def _softmax(scores: Tensor, mask: Tensor, *, rows: int | None = None) -> Tensor:
    """Over the last axis, with a mask that repeats along the axes before it."""
    queries, keys = mask.shape[-2:]
    shape = (-1, queries, keys) if rows is None else (rows, len(scores) // rows, -1, queries, keys)
    return torch.softmax(scores.view(shape).add_(mask), dim=-1).view(scores.shape)


def _softmax_gradient(grad_weights: Tensor, weights: Tensor) -> Tensor:
    """w · (g - Σ g · w)."""
    return torch.ops.aten._softmax_backward_data(grad_weights, weights, -1, weights.dtype)


def _fused(query: Tensor, key: Tensor, value: Tensor, tree: TreeAttention, shapes: _Shapes) -> Tensor:
    """Stem attention through torch's kernel, whose scores need no room; the queries are scaled already."""
    by_head = query.view(shapes.B, shapes.G * shapes.R, shapes.P, -1)
    keys, values = (x.view(shapes.B, shapes.G, -1, x.shape[-1]) for x in (key, value))
    out = F.scaled_dot_product_attention(by_head, keys, values, tree.stem_mask_PS, scale=1.0, enable_gqa=True)
    return out.reshape(query.shape)
