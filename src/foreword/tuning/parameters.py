"""What the optimiser moves. Axes: L layer, H KV head, N virtual position, D head dimension.

Keys and values are trained directly, as an offset from where they start, in units of each layer's own size: one
learning rate then means the same relative step in a layer whose keys are large and in one whose values are small.
The MLP reparameterisation of Li & Liang (2021, §4.3) is the alternative; it is dropped once training ends.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn


class PrefixParameters(Protocol):
    """Trainable tensors and the keys and values that they stand for."""

    def keys_values(self) -> tuple[Tensor, Tensor]:
        """`key_LHND`, `value_LHND` in float32, differentiable in the parameters."""
        ...

    def tensors(self) -> dict[str, nn.Parameter]:
        """The trainable tensors by name, in a fixed order."""
        ...


class ScaledOffsets:
    """Start + scale · offset, where scale is the root mean square of each layer's keys (or values) at the start."""

    def __init__(self, key_LHND: Tensor, value_LHND: Tensor) -> None:
        self._start = (key_LHND.float(), value_LHND.float())
        self._scale = tuple(_layer_size(tensor) for tensor in self._start)
        self.key_offset = nn.Parameter(torch.zeros_like(self._start[0]))
        self.value_offset = nn.Parameter(torch.zeros_like(self._start[1]))

    def keys_values(self) -> tuple[Tensor, Tensor]:
        return self._start[0] + self._scale[0] * self.key_offset, self._start[1] + self._scale[1] * self.value_offset

    def tensors(self) -> dict[str, nn.Parameter]:
        return {"key_offset": self.key_offset, "value_offset": self.value_offset}


class Reparameterised:
    """P = start + MLP(embedding), the MLP's last layer starting at zero (Li & Liang 2021, §4.3, with a text start)."""

    def __init__(self, key_LHND: Tensor, value_LHND: Tensor, *, hidden: int, seed: int) -> None:
        layers, heads, positions, head_dim = key_LHND.shape
        self._start = (key_LHND.float(), value_LHND.float())
        self._scale = tuple(_layer_size(tensor) for tensor in self._start)
        self._shape = (positions, 2, layers, heads, head_dim)
        draw = torch.Generator().manual_seed(seed)
        width = 2 * layers * heads * head_dim
        made = {
            "embedding": torch.randn(positions, hidden, generator=draw),
            "inner_weight": torch.randn(hidden, hidden, generator=draw) * hidden**-0.5,
            "inner_bias": torch.zeros(hidden),
            "outer_weight": torch.zeros(width, hidden),
        }
        self._tensors = {name: nn.Parameter(tensor.to(key_LHND.device)) for name, tensor in made.items()}

    def keys_values(self) -> tuple[Tensor, Tensor]:
        tensors = self._tensors
        inner = torch.tanh(nn.functional.linear(tensors["embedding"], tensors["inner_weight"], tensors["inner_bias"]))
        offset = nn.functional.linear(inner, tensors["outer_weight"]).view(self._shape).permute(1, 2, 3, 0, 4)
        return self._start[0] + self._scale[0] * offset[0], self._start[1] + self._scale[1] * offset[1]

    def tensors(self) -> dict[str, nn.Parameter]:
        return dict(self._tensors)


def _layer_size(tensor_LHND: Tensor) -> Tensor:
    """Root mean square per layer, L 1 1 1; 1 where a layer is all zeros."""
    size = tensor_LHND.float().pow(2).mean(dim=(1, 2, 3), keepdim=True).sqrt()
    return torch.where(size > 0, size, torch.ones_like(size))
