"""The two caches that put a prefix before a prompt. Axes: L layer, B row, H KV head, S slot, D head dim."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache


class PrefixView(Cache):
    """Answers each layer's update with [prefix; new] and keeps nothing, so gradients reach the prefix."""

    def __init__(self, key_LHND: Tensor, value_LHND: Tensor) -> None:
        super().__init__(layers=[])
        self._positions = key_LHND.shape[2]
        # Taken apart once: the gradient of an index into the whole would be a tensor as large as the whole, for every layer.
        self._keys_HND, self._values_HND = key_LHND.unbind(), value_LHND.unbind()

    def update(self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        rows = key_states.shape[0]
        prefix_key = self._keys_HND[layer_idx].to(key_states.dtype).expand(rows, -1, -1, -1)
        prefix_value = self._values_HND[layer_idx].to(value_states.dtype).expand(rows, -1, -1, -1)
        return torch.cat([prefix_key, key_states], dim=2), torch.cat([prefix_value, value_states], dim=2)

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return self._positions


class SlotCache(Cache):
    """Keys and values in slots allocated once; every row writes to the same slots.

    Attributes:
        filled: slots in use; the next update appends there.
    """

    def __init__(self, *, layers: int, rows: int, heads: int, slots: int, head_dim: int, dtype: torch.dtype, device: torch.device) -> None:
        super().__init__(layers=[])
        shape = (rows, heads, slots, head_dim)
        self.key_BHSD = [torch.empty(shape, dtype=dtype, device=device) for _ in range(layers)]
        self.value_BHSD = [torch.empty(shape, dtype=dtype, device=device) for _ in range(layers)]
        self.filled = 0

    def put_prefix(self, key_LHND: Tensor, value_LHND: Tensor) -> None:
        """Writes a prefix into the first slots of every row."""
        positions = key_LHND.shape[2]
        for layer, (key_BHSD, value_BHSD) in enumerate(zip(self.key_BHSD, self.value_BHSD, strict=True)):
            key_BHSD[:, :, :positions] = key_LHND[layer]
            value_BHSD[:, :, :positions] = value_LHND[layer]
        self.filled = positions

    def update(self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        end = self.filled + key_states.shape[2]
        key_BHSD, value_BHSD = self.key_BHSD[layer_idx], self.value_BHSD[layer_idx]
        key_BHSD[:, :, self.filled : end] = key_states
        value_BHSD[:, :, self.filled : end] = value_states
        return key_BHSD[:, :, :end], value_BHSD[:, :, :end]

    def advance(self, tokens: int) -> None:
        """Marks the slots just written by every layer as used."""
        self.filled += tokens

    def keep_rows(self, rows: Tensor) -> None:
        """Drops every row but `rows`."""
        self.key_BHSD = [key[rows] for key in self.key_BHSD]
        self.value_BHSD = [value[rows] for value in self.value_BHSD]

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return self.filled
