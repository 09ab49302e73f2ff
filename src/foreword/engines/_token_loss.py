"""Log-probabilities at chosen positions only, a chunk at a time. Axes: T target token, D hidden, V vocabulary.

The usual path multiplies every position with the output embedding and keeps T × V logits for the backward pass.
Here logits exist for one chunk at a time, and the gradient with respect to the hidden state,
d log p / d h = W[target] - softmax(W h) W, is formed in the same visit, so nothing of size V is kept.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

CHUNK = 128
"""Target tokens at a time: enough for a fast product, few enough that their logits stay near the processor."""


def _chunk(hidden: Tensor, weight_VD: Tensor, bias_V: Tensor | None, target: Tensor, softcap: float | None, grad: bool):
    logits = torch.nn.functional.linear(hidden, weight_VD, bias_V)
    slope = None
    if softcap is not None:
        tanh = torch.tanh(logits.float() / softcap)
        logits, slope = softcap * tanh, 1 - tanh * tanh
    # One softmax in float32 serves for both results: log Z follows exactly from the largest logit and its probability.
    probability = torch.softmax(logits, dim=-1, dtype=torch.float32)
    largest, place = logits.max(dim=-1)
    log_z = largest.float() - probability.gather(1, place[:, None])[:, 0].log()
    log_p = logits.gather(1, target[:, None])[:, 0].float() - log_z
    if not grad:
        return log_p, None
    residual = probability.neg_()
    residual[torch.arange(len(target), device=target.device), target] += 1
    if slope is not None:
        residual *= slope
    return log_p, residual.to(weight_VD.dtype) @ weight_VD


class _TargetLogProbs(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden_TD: Tensor, weight_VD: Tensor, bias_V: Tensor | None, target_T: Tensor, softcap: float | None) -> Tensor:
        grad = ctx.needs_input_grad[0]
        parts = [
            _chunk(hidden, weight_VD, bias_V, target, softcap, grad)
            for hidden, target in zip(hidden_TD.split(CHUNK), target_T.split(CHUNK), strict=True)
        ]
        if grad:
            ctx.save_for_backward(torch.cat([slope for _, slope in parts if slope is not None]))
        return torch.cat([log_p for log_p, _ in parts])

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        (slope_TD,) = ctx.saved_tensors
        return slope_TD * grads[0][:, None].to(slope_TD.dtype), None, None, None, None


def target_log_probs(hidden_TD: Tensor, head: torch.nn.Module, target_T: Tensor, *, softcap: float | None) -> Tensor:
    """log p(target) at each position, fp32, T; differentiable in the hidden states, never in the head."""
    return _TargetLogProbs.apply(hidden_TD, head.weight.detach(), getattr(head, "bias", None), target_T, softcap)  # type: ignore[no-any-return]
