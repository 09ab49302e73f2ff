"""Attention that consults a side signal beside the prompt's own tokens (`foreword.prefix.side_signal` says what that is).

Axes: L layer, B batch, Q query head, G KV head, R query heads per KV head, T token, S key token, N position of the side signal, D head dim.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from foreword.engine import Shares
from foreword.errors import ModelError

if TYPE_CHECKING:
    from foreword.prefix.side_signal import SideSignal


class SideAttention:
    """What every layer needs to add a side signal to its own attention's output.

    With `by_share` the two are merged as one softmax over both would: by their shares of its sum, which differ from query to query, the
    gate added to the log of the side signal's part. With a gate of zero that is ordinary attention to a prefix, kept as the reference. It
    has to be told the prompt's keys and mask, so rows must be padded.
    """

    def __init__(self, side: SideSignal, *, dtype: torch.dtype, device: torch.device, by_share: bool = False) -> None:
        self._key_GNDs, self._value_GNDs = (tensor.to(device, dtype).unbind() for tensor in (side.key_LHND, side.value_LHND))
        self._gate_LQ = side.gate_LQ.to(device)
        self._by_share = by_share
        self.sums: ShareSums | None = None
        """Where to add up what merging by share does; only with `by_share`."""

    def __call__(self, layer: int, query_BQTD: Tensor, key_BGSD: Tensor, mask: Tensor | None, scale: float, own_BTQD: Tensor) -> Tensor:
        """The layer's attention with the side signal in it: B T Q D."""
        if not self._by_share:
            return own_BTQD + self._gate_LQ[layer][:, None].to(own_BTQD.dtype) * self._consulted(layer, query_BQTD, scale)
        aside_BTQD = self._consulted(layer, query_BQTD, scale)
        aside_BQT = _log_sums(query_BQTD, self._key_GNDs[layer][None], None, scale)
        own_BQT = _log_sums(query_BQTD, key_BGSD, mask, scale)
        share_BTQ = torch.sigmoid(aside_BQT - own_BQT + self._gate_LQ[layer][:, None]).transpose(1, 2)
        added_BTQD = share_BTQ[..., None] * (aside_BTQD.float() - own_BTQD.float())
        if self.sums is not None:
            self.sums.add(layer, share_BTQ, added_BTQD, aside_BTQD.float())
        return (own_BTQD.float() + added_BTQD).to(own_BTQD.dtype)

    def _consulted(self, layer: int, query_BQTD: Tensor, scale: float) -> Tensor:
        """Attention over the side signal alone: B T Q D."""
        key_GND, value_GND = self._key_GNDs[layer], self._value_GNDs[layer]
        B, Q, T, D = query_BQTD.shape
        G = len(key_GND)
        # The query heads of one KV head stand side by side as one longer query, so that keys are not repeated.
        query_1GMD = query_BQTD.view(B, G, -1, T, D).permute(1, 2, 0, 3, 4).reshape(1, G, -1, D)
        out_1GMD = F.scaled_dot_product_attention(query_1GMD, key_GND[None], value_GND[None], scale=scale)
        return out_1GMD.view(Q, B, T, D).permute(1, 2, 0, 3)


class ShareSums:
    """Adds up, while a forward pass runs, what merging by share gives the side signal; one for several passes."""

    def __init__(self, gate_LQ: Tensor) -> None:
        self._share_LQ, self._along_LQ, self._square_LQ = (torch.zeros_like(gate_LQ, dtype=torch.float64) for _ in range(3))
        self._tokens = 0
        self.counted_BT: Tensor | None = None
        """True for the tokens of the pass that count."""

    def add(self, layer: int, share_BTQ: Tensor, added_BTQD: Tensor, aside_BTQD: Tensor) -> None:
        """One layer's."""
        assert self.counted_BT is not None
        if layer == 0:
            self._tokens += int(self.counted_BT.sum())
        self._share_LQ[layer] += share_BTQ[self.counted_BT].double().sum(0)
        self._along_LQ[layer] += (added_BTQD * aside_BTQD).sum(-1)[self.counted_BT].double().sum(0)
        self._square_LQ[layer] += aside_BTQD.square().sum(-1)[self.counted_BT].double().sum(0)

    def found(self) -> Shares:
        """Means and best gates over all tokens that counted."""
        fitted_LQ = self._along_LQ / self._square_LQ.clamp_min(torch.finfo(torch.float32).tiny)
        return Shares(share_LQ=(self._share_LQ / max(1, self._tokens)).float(), fitted_LQ=fitted_LQ.float())


def check(side: SideSignal, *, name: str, query_heads: int, near_sighted: bool) -> None:
    """Raises `ModelError` unless the model `name` can consult the side signal."""
    if near_sighted:
        raise ModelError(
            f"`{name}` has layers with a sliding window, or caps its attention scores; a side signal is seen from anywhere and by plain "
            "products. Use the dictionary as a prefix instead."
        )
    if side.gate_LQ.shape[1] != query_heads:
        raise ModelError(f"The gate of `{side.name}` is for {side.gate_LQ.shape[1]} query heads; `{name}` has {query_heads}.")


def _log_sums(query_BQTD: Tensor, key_BGSD: Tensor, mask: Tensor | None, scale: float) -> Tensor:
    """Log of each query's sum of exponentiated scores, float32: B Q T."""
    B, Q, T, D = query_BQTD.shape
    query_BGRTD = query_BQTD.float().view(B, key_BGSD.shape[1], -1, T, D) * scale
    scores_BGRTS = query_BGRTD @ key_BGSD.float()[:, :, None].transpose(3, 4)
    if mask is not None:
        scores_BGRTS = scores_BGRTS + mask[:, :, None].float()
    return scores_BGRTS.logsumexp(-1).view(B, Q, T)
