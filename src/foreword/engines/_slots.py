"""Where running requests keep their keys and values: one row of slots each, allocated once and grown when needed.

Axes: L layer, R row, G KV head, S slot, D head dim.
"""

from __future__ import annotations

import torch
from torch import Tensor

FIRST_ROWS, FIRST_SLOTS = 4, 64


class SlotPool:
    """Keys and values of every layer for up to `most_rows` rows of up to `most_slots` slots.

    Memory grows by doubling, with what is used: few short requests take little, whatever the bounds.
    """

    def __init__(
        self, *, layers: int, heads: int, head_dim: int, most_rows: int, most_slots: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        self._heads, self._head_dim, self._dtype, self._device = heads, head_dim, dtype, device
        self.most_rows, self.most_slots = most_rows, most_slots
        self.rows = self.slots = 0
        self.key_RGSD: list[Tensor] = [self._zeros(0, 0) for _ in range(layers)]
        self.value_RGSD: list[Tensor] = [self._zeros(0, 0) for _ in range(layers)]

    def ensure(self, rows: int, slots: int) -> None:
        """Makes room for `rows` rows of `slots` slots; what is there stays."""
        if rows <= self.rows and slots <= self.slots:
            return
        wanted_rows = min(self.most_rows, _doubled(self.rows or FIRST_ROWS, rows))
        wanted_slots = min(self.most_slots, _doubled(self.slots or FIRST_SLOTS, slots))
        assert rows <= wanted_rows and slots <= wanted_slots, "admission keeps to the bounds"
        for tensors in (self.key_RGSD, self.value_RGSD):
            for layer, old in enumerate(tensors):
                new = self._zeros(wanted_rows, wanted_slots)
                new[: self.rows, :, : self.slots] = old
                tensors[layer] = new
        self.rows, self.slots = wanted_rows, wanted_slots

    def put(self, row: int, key_LGND: Tensor, value_LGND: Tensor) -> None:
        """Copies a prefix into the first slots of a row."""
        positions = key_LGND.shape[2]
        for layer, (key_RGSD, value_RGSD) in enumerate(zip(self.key_RGSD, self.value_RGSD, strict=True)):
            key_RGSD[row, :, :positions] = key_LGND[layer]
            value_RGSD[row, :, :positions] = value_LGND[layer]

    def move(self, source: int, to: int, slots: int) -> None:
        """Copies the first `slots` slots of one row over another."""
        for tensors in (self.key_RGSD, self.value_RGSD):
            for tensor in tensors:
                tensor[to, :, :slots] = tensor[source, :, :slots]

    def release(self) -> None:
        """Gives the memory back."""
        for tensors in (self.key_RGSD, self.value_RGSD):
            tensors[:] = [self._zeros(0, 0) for _ in tensors]
        self.rows = self.slots = 0

    def _zeros(self, rows: int, slots: int) -> Tensor:
        # Zeros: a hidden slot has no weight, but nothing times a stray NaN is NaN.
        return torch.zeros(rows, self._heads, slots, self._head_dim, dtype=self._dtype, device=self._device)


def _doubled(start: int, wanted: int) -> int:
    while start < wanted:
        start *= 2
    return start
