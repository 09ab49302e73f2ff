"""Linear layers with int8 weights, for the CPU: half of bfloat16's memory, and about twice its speed for a few rows.

Weights are rounded once, symmetrically, with one scale per output channel (weight-only quantisation; the rows of LLM.int8(), Dettmers
et al. 2022, §2, without its activations: rounding those too made the divergence on SmolLM2-135M nine times as large). Each product with few
bfloat16 rows runs in torch's kernel for it, which reads a byte for each weight; with many rows, or in another dtype, where that kernel is
slower than the plain product, a layer's weights become floating point again for the moment.

Axes: R row, I input channel, O output channel.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from foreword.errors import ConfigError

FEW_ROWS = 16
"""Up to here the int8 kernel is the faster way (hidden size 576, one core with avx512_bf16: 2.2 times as fast as bfloat16 at 1 to 4 rows,
1.3 at 8, 0.9 at 16, where turning the weights back is at 0.8)."""

BLOCK = 64
"""Sizes that the kernel computes whole; it reads past the end of rows of other sizes."""


def quantize_weights(module: Any) -> None:
    """Replaces the linear layers of a causal language model by ones with int8 weights, in place. Embeddings and output head stay.

    On SmolLM2-135M in bfloat16, the log-probabilities of a text's tokens move by 0.07 on average (bfloat16 itself moves them by 0.03), and
    its perplexity by 0.1 %.

    Raises:
        ConfigError: the module is not on the CPU.
    """
    if module.device.type != "cpu":
        raise ConfigError(f'weights="int8" is for the CPU; the model is on {module.device}. Load it with device="cpu", or leave int8 out.')
    head = module.get_output_embeddings()
    for owner in list(module.modules()):
        for name, layer in list(owner.named_children()):
            if layer is not head and (weight_OI := _weight(layer)) is not None:
                setattr(owner, name, Int8Linear(weight_OI, layer.bias))


class Int8Linear(nn.Module):
    """A linear layer whose weight is held as int8; gradients flow to its input."""

    weight_OI: Tensor
    scale_O: Tensor
    bias: Tensor | None

    def __init__(self, weight_OI: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.out_features, self.in_features = weight_OI.shape
        exact_OI = weight_OI.detach().float()
        # The kernel wants the scale in the rows' dtype, so weights are rounded with the scale as that dtype holds it.
        scale_O = (exact_OI.abs().amax(1) / 127).to(weight_OI.dtype)
        rounded_OI = (exact_OI / scale_O.float().clamp_min(torch.finfo(torch.float32).tiny)[:, None]).round_()
        self.register_buffer("weight_OI", rounded_OI.clamp_(-127, 127).to(torch.int8).contiguous())
        self.register_buffer("scale_O", scale_O)
        self._has_kernel = scale_O.dtype == torch.bfloat16 and self.in_features % BLOCK == self.out_features % BLOCK == 0
        self.register_buffer("bias", None if bias is None else bias.detach().clone())

    def forward(self, input: Tensor) -> Tensor:
        """Any leading axes, I to O."""
        rows_RI = input.reshape(-1, self.in_features).contiguous()
        if self._takes(rows_RI):
            out_RO = torch.ops.aten._weight_int8pack_mm(rows_RI, self.weight_OI, self.scale_O)
        else:
            out_RO = F.linear(rows_RI, self.weight_OI.to(rows_RI.dtype)) * self.scale_O
        if self.bias is not None:
            out_RO = out_RO + self.bias
        return out_RO.view(*input.shape[:-1], self.out_features)

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"

    def _takes(self, rows_RI: Tensor) -> bool:
        """Whether the int8 kernel is there for these rows and the faster way."""
        few = self._has_kernel and 0 < len(rows_RI) <= FEW_ROWS and rows_RI.dtype == self.scale_O.dtype
        return few and not (torch.is_grad_enabled() and rows_RI.requires_grad)


def _weight(layer: nn.Module) -> Tensor | None:
    """The weight of a linear layer, O I; None for other layers."""
    if isinstance(layer, nn.Linear):
        return layer.weight
    # GPT-2's layers hold their weight the other way round; the class is named, so that transformers is not imported for it.
    return layer.weight.t() if type(layer).__name__ == "Conv1D" else None  # type: ignore[union-attr]
