"""Grouped-query attention as three matrix products, for prefix training on short rows.

Axes: B batch, H query head, G KV head, R query heads per KV head, T query token, S key token, D head dim.

Why not torch's fused kernel: on the CPU its backward with a mask took a third of a training step (measured,
`docs/lab-notes.md`). Rows here are short, so the score matrix is small and the products run at full speed.
Long rows without gradients still take the fused kernel, which never holds the T × S matrix.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from foreword.engines._flat import LARGEST_SCORES, TreeAttention
from foreword.engines._side_signal import SideAttention
from foreword.engines._step import StepAttention

NAME = "foreword_grouped"


class _GroupedAttention(torch.autograd.Function):
    """softmax(q kᵀ · scale + mask) v with the probabilities kept for the backward pass."""

    @staticmethod
    def forward(ctx: Any, query_BHTD: Tensor, key_BGSD: Tensor, value_BGSD: Tensor, mask_B1TS: Tensor, scale: float) -> Tensor:
        B, H, T, D = query_BHTD.shape
        G, S = key_BGSD.shape[1:3]
        query = (query_BHTD * scale).reshape(B * G, (H // G) * T, D)
        key = key_BGSD.reshape(B * G, S, D)
        value = value_BGSD.reshape(B * G, S, D)
        scores = torch.bmm(query, key.transpose(1, 2)).view(B, G, H // G, T, S)
        weights = torch.softmax(scores + mask_B1TS[:, :, None], dim=-1).view(B * G, (H // G) * T, S)
        ctx.save_for_backward(query, key, value, weights)
        ctx.scale, ctx.query_shape, ctx.key_shape = scale, query_BHTD.shape, key_BGSD.shape
        return torch.bmm(weights, value).view(B, H, T, D)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        query, key, value, weights = ctx.saved_tensors
        grad_out = grads[0].reshape(query.shape)
        grad_value = torch.bmm(weights.transpose(1, 2), grad_out)
        grad_weights = torch.bmm(grad_out, value.transpose(1, 2))
        # d softmax: w * (g - sum(g * w))
        grad_scores = torch.ops.aten._softmax_backward_data(grad_weights, weights, -1, weights.dtype)
        grad_query = (torch.bmm(grad_scores, key) * ctx.scale).view(ctx.query_shape)
        grad_key = torch.bmm(grad_scores.transpose(1, 2), query).view(ctx.key_shape)
        return grad_query, grad_key, grad_value.view(ctx.key_shape), None, None


class PrefixAttention:
    """Sums, while a forward pass runs, the attention that goes to the first `positions` keys: L G N."""

    def __init__(self, layers: int, kv_heads: int, positions: int, device: torch.device) -> None:
        self.mass_LGN = torch.zeros(layers, kv_heads, positions, device=device)

    def add(
        self,
        layer: int,
        query_BHTD: Tensor,
        key_BGSD: Tensor,
        mask_B1TS: Tensor,
        scale: float,
        counted_BT: Tensor,
        softcap: float | None = None,
    ) -> None:
        """Adds one layer's attention; `counted_BT` is 0 for padding tokens."""
        B, H, T, D = query_BHTD.shape
        G, S = key_BGSD.shape[1:3]
        scores = (query_BHTD.float() * scale).reshape(B, G, (H // G) * T, D) @ key_BGSD.float().transpose(2, 3)
        if softcap is not None:
            scores = softcap * torch.tanh(scores / softcap)
        weights = torch.softmax(scores.view(B, G, H // G, T, S) + mask_B1TS[:, :, None].float(), dim=-1)
        positions = self.mass_LGN.shape[2]
        self.mass_LGN[layer] += torch.einsum("bgrtn,bt->gn", weights[..., :positions], counted_BT.float())


class Questions:
    """Keeps, while a forward pass over one row runs, what chosen tokens ask of the prefix, layer by layer.

    Attributes:
        query_GMD: scaled queries of the kept tokens, the R heads of a KV head one after the other (M = R · kept), float32.
        beside_GM: log-sum-exp of each query's scores beside the prefix.
    """

    def __init__(self, positions: int, kept: Tensor) -> None:
        self._positions, self._kept = positions, kept
        self.query_GMD: list[Tensor] = []
        self.beside_GM: list[Tensor] = []

    def add(self, query_1HTD: Tensor, key_1GSD: Tensor, mask_11TS: Tensor, scale: float) -> None:
        """Adds the next layer."""
        G, D = key_1GSD.shape[1], key_1GSD.shape[3]
        kept = len(self._kept)
        query_HKD = query_1HTD[0].index_select(1, self._kept).float() * scale
        own_GPD = key_1GSD[0, :, self._positions :].float()
        scores_GRKP = query_HKD.view(G, -1, kept, D) @ own_GPD[:, None].transpose(2, 3)
        scores_GRKP += mask_11TS[0, 0].index_select(0, self._kept)[:, self._positions :].float()
        self.query_GMD.append(query_HKD.reshape(G, -1, D))
        self.beside_GM.append(scores_GRKP.logsumexp(-1).view(G, -1))


def attend(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    beside: SideAttention | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """The attention function registered with transformers under `NAME`; arguments as for `_attend`.

    Args:
        beside: adds to the tokens' own attention what they find in a side signal.

    Returns:
        B, T, H, D and no weights.
    """
    scale = scaling if scaling is not None else query.shape[-1] ** -0.5
    out = _attend(module, query, key, value, attention_mask, scale, **options)
    return (out if beside is None else beside(int(module.layer_idx), query, key, attention_mask, scale, out)), None  # type: ignore[arg-type]


def _attend(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scale: float,
    *,
    prefix_attention: tuple[PrefixAttention, Tensor] | None = None,
    tree: TreeAttention | None = None,
    step: StepAttention | None = None,
    questions: Questions | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **_: Any,
) -> Tensor:
    """The tokens' own attention: B, T, H, D.

    Args:
        query: B, H, T, D.
        key, value: B, G, S, D; a prefix, where there is one, already stands in front.
        attention_mask: additive, B, 1, T, S, in the query's dtype.
        scale: factor on the scores.
        prefix_attention: where to sum the attention that goes to the prefix, and which tokens (B T) count.
        tree: the rows stand one after the other (B is 1), and this attends over them; it knows the prefix and needs no mask.
        step: the same for a step of the scheduler, whose keys and values stay in slots.
        questions: where to keep what tokens ask of the prefix.
        sliding_window: the layer's; only a step needs to be told, elsewhere the mask holds it.
        softcap: bound of the scores' tanh (Gemma 2).
    """
    if tree is not None:
        return tree(int(module.layer_idx), query, key, value, scale)  # type: ignore[arg-type]
    if step is not None:
        return step(int(module.layer_idx), query, key, value, scale, window=sliding_window, softcap=softcap)  # type: ignore[arg-type]
    if prefix_attention is not None and attention_mask is not None:
        prefix_attention[0].add(int(module.layer_idx), query, key, attention_mask, scale, prefix_attention[1], softcap)  # type: ignore[arg-type]
    if questions is not None and attention_mask is not None:
        questions.add(query, key, attention_mask, scale)
    needs_grad = torch.is_grad_enabled() and (query.requires_grad or key.requires_grad or value.requires_grad)
    if softcap is not None:
        out = _capped(query, key, value, attention_mask, scale, softcap)
    elif attention_mask is None or (not needs_grad and query.shape[2] * key.shape[2] > LARGEST_SCORES):
        out = F.scaled_dot_product_attention(query, key, value, attention_mask, scale=scale, enable_gqa=True)
    else:
        out = _GroupedAttention.apply(query, key, value, attention_mask, scale)
    return out.transpose(1, 2).contiguous()


def _capped(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scale: float, softcap: float) -> Tensor:
    """Scores held within ±softcap before the mask (Gemma 2 report, §2); plain and slow, with torch's own gradient."""
    share = query.shape[1] // key.shape[1]
    scores = query @ key.repeat_interleave(share, 1).transpose(2, 3) * scale
    scores = softcap * torch.tanh(scores / softcap)
    weights = torch.softmax(scores if mask is None else scores + mask, dim=-1, dtype=torch.float32).to(query.dtype)
    return weights @ value.repeat_interleave(share, 1)


def register() -> None:
    """Makes transformers know the function; safe to call twice."""
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, eager_mask
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    ALL_ATTENTION_FUNCTIONS.register(NAME, attend)
    ALL_MASK_ATTENTION_FUNCTIONS.register(NAME, eager_mask)
