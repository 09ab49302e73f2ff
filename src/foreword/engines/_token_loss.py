"""Log-probabilities at chosen positions only, a chunk at a time. Axes: T target token, C candidate, D hidden, V vocabulary.

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
        logits, slope = _capped(logits, softcap)
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


class _LogProbsOf(torch.autograd.Function):
    """As above for several tokens at a position: d log p_c / d h = W[c] - softmax(W h) W, times the cap's slope where scores are capped."""

    @staticmethod
    def forward(ctx: Any, hidden_TD: Tensor, weight_VD: Tensor, bias_V: Tensor | None, ids_TC: Tensor, softcap: float | None) -> Tensor:
        log_ps, means, slopes = [], [], []
        for hidden, ids in zip(hidden_TD.split(CHUNK), ids_TC.split(CHUNK), strict=True):
            logits, slope = _logits(hidden, weight_VD, bias_V, softcap)
            log_ps.append(logits.gather(1, ids) - logits.logsumexp(-1, keepdim=True))
            if ctx.needs_input_grad[0]:
                probability = torch.softmax(logits, dim=-1)
                means.append((probability if slope is None else probability * slope).to(weight_VD.dtype) @ weight_VD)
                slopes.append(torch.ones_like(log_ps[-1]) if slope is None else slope.gather(1, ids))
        if ctx.needs_input_grad[0]:
            ctx.save_for_backward(torch.cat(means), torch.cat(slopes), ids_TC, weight_VD)
        return torch.cat(log_ps)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        mean_TD, slope_TC, ids_TC, weight_VD = ctx.saved_tensors
        grad_TC = grads[0]
        parts = []
        for mean, slope, ids, grad in zip(*(tensor.split(CHUNK) for tensor in (mean_TD, slope_TC, ids_TC, grad_TC)), strict=True):
            own = torch.einsum("tc,tcd->td", (grad * slope).to(weight_VD.dtype), weight_VD[ids])
            parts.append(own - grad.sum(-1, keepdim=True).to(mean.dtype) * mean)
        return torch.cat(parts), None, None, None, None


def _logits(hidden: Tensor, weight_VD: Tensor, bias_V: Tensor | None, softcap: float | None) -> tuple[Tensor, Tensor | None]:
    """Logits in float32, and the slope of the cap where there is one."""
    logits = torch.nn.functional.linear(hidden, weight_VD, bias_V).float()
    return (logits, None) if softcap is None else _capped(logits, softcap)


def _capped(logits: Tensor, softcap: float) -> tuple[Tensor, Tensor]:
    """Logits within ±softcap in float32, and the slope of the cap at each."""
    tanh = torch.tanh(logits.float() / softcap)
    return softcap * tanh, 1 - tanh * tanh


def log_probs_of(hidden_TD: Tensor, head: torch.nn.Module, ids_TC: Tensor, *, softcap: float | None) -> Tensor:
    """log p of given tokens at each position, fp32, T C; differentiable in the hidden states, never in the head."""
    return _LogProbsOf.apply(hidden_TD, head.weight.detach(), getattr(head, "bias", None), ids_TC, softcap)  # type: ignore[no-any-return]


def likeliest(hidden_TD: Tensor, head: torch.nn.Module, count: int, *, softcap: float | None) -> tuple[Tensor, Tensor]:
    """The `count` most probable tokens at each position and their log p: T C each."""
    found = []
    for hidden in hidden_TD.split(CHUNK):
        logits, _ = _logits(hidden, head.weight, getattr(head, "bias", None), softcap)  # type: ignore[arg-type]
        best, ids = logits.topk(min(count, logits.shape[-1]), dim=-1)
        found.append((ids, best - logits.logsumexp(-1, keepdim=True)))
    return torch.cat([ids for ids, _ in found]), torch.cat([log_p for _, log_p in found])
