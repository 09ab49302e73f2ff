"""Frozen linear layers on the CPU: each weight is laid out once as oneDNN wants it, not again in every call.

torch lays a bfloat16 weight out anew for every product, which is half of a product with one row, and multiplies float32 through a
library that reaches half of oneDNN's speed on some processors (figures in `docs/lab-notes.md`). A frozen weight never changes, so its
layout can be kept: one copy for the forward pass, made when a layer is first used, and one for the backward pass, made when a gradient
first comes by. The weight itself stays as it is, for whoever reads or trains it; one that is written to gets new layouts, which its version
tells (`torch.autograd.graph.increment_version` where somebody writes through `.data`).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

PACKED_DTYPES = (torch.float32, torch.bfloat16)
ROWS_EXPECTED = 512
"""A hint for the layout; others were measured to be no slower with it."""


def pack_linear_layers(module: nn.Module) -> None:
    """Makes every frozen linear layer of `module` use packed weights; does nothing where oneDNN is not there."""
    if not (torch.backends.mkldnn.is_available() and torch.backends.mkldnn.enabled):
        return
    for layer in module.modules():
        if type(layer) is nn.Linear and layer.weight.dtype in PACKED_DTYPES and layer.weight.device.type == "cpu":
            layer.forward = _Packed(layer)


class _Packed:
    """The forward pass of one linear layer."""

    def __init__(self, layer: nn.Linear) -> None:
        self._layer = layer
        self._made_from = _state(layer.weight)
        self._packed: Tensor | None = None
        self._transposed: Tensor | None = None

    def __call__(self, input: Tensor) -> Tensor:
        weight = self._layer.weight
        if weight.requires_grad or input.dtype != weight.dtype or input.device != weight.device or torch.compiler.is_compiling():
            return F.linear(input, weight, self._layer.bias)
        if (state := _state(weight)) != self._made_from:
            self._made_from, self._packed, self._transposed = state, None, None
        return _Product.apply(input, self)  # type: ignore[no-any-return]

    def product(self, x: Tensor) -> Tensor:
        """x Wᵀ + b."""
        if self._packed is None:
            self._packed = _reordered(self._layer.weight.detach())
        return _multiplied(x, self._packed, self._layer.bias)

    def product_of_gradient(self, grad: Tensor) -> Tensor:
        """grad W."""
        if self._transposed is None:
            self._transposed = _reordered(self._layer.weight.detach().t().contiguous())
        return _multiplied(grad, self._transposed, None)


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, packed: _Packed) -> Tensor:
        ctx.packed = packed
        return packed.product(x)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        return ctx.packed.product_of_gradient(grads[0]), None


def _state(weight: Tensor) -> tuple[int, int]:
    """What changes when a weight is replaced or written to."""
    return weight.data_ptr(), weight._version


def _reordered(weight: Tensor) -> Tensor:
    # Outside inference mode: a layout made while scoring must serve training too.
    with torch.inference_mode(False), torch.no_grad():
        return torch.ops.mkldnn._reorder_linear_weight(weight, ROWS_EXPECTED)


def _multiplied(x: Tensor, packed: Tensor, bias: Tensor | None) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(x.contiguous(), packed, bias, "none", [], "")
