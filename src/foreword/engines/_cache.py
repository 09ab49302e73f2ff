"""The cache that puts a prefix before padded rows. Axes: L layer, H KV head, N virtual position, D head dim."""

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
