"""One forward pass over many requests: the next token of each running one, and pieces of the prompts of those that join.

All tokens stand one after the other, so every product with a weight sees all requests at once, whatever their lengths and prefixes.
Attention goes row by row to the slots where a request's keys and values are kept, and to its prefix: either the prefix's own copy at
the start of those slots, or, where several requests share it, the one set of tensors that all of them refer to. The two parts are
joined exactly through their log-sums (Milakov & Gimelshein 2018; the same merge as in FlashDecoding).

Axes: M flat token, R running row, B decoding row, G KV head, Q query heads per KV head, T token of a chunk, S slot, N prefix position,
D head dim.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from foreword.engines._resident import PrefixTensors
from foreword.engines._rows import additive
from foreword.engines._slots import SlotPool


class Seat(Protocol):
    """A running request as the forward pass sees it."""

    @property
    def row(self) -> int:
        """Its row of slots."""
        ...

    @property
    def filled(self) -> int:
        """Slots in use, a copied prefix included."""
        ...

    @property
    def shared(self) -> PrefixTensors | None:
        """The prefix that it refers to; None where it has none, or a copy in its own slots."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """Tokens to append to one request: its newest one, or a piece of its prompt."""

    seat: Seat
    tokens: tuple[int, ...]

    @property
    def ahead(self) -> int:
        """Positions of a prefix that stand before the first slot."""
        return 0 if self.seat.shared is None else self.seat.shared.positions


class StepAttention:
    """Every layer's attention in one forward pass. Chunks of one token come first in the flat order."""

    def __init__(self, pool: SlotPool, chunks: Sequence[Chunk], *, device: torch.device) -> None:
        self._pool, self._device = pool, device
        self.chunks = sorted(chunks, key=lambda chunk: (len(chunk.tokens) > 1, chunk.seat.row))
        self._single = [chunk for chunk in self.chunks if len(chunk.tokens) == 1]
        self._several = self.chunks[len(self._single) :]
        pool.ensure(1 + max(chunk.seat.row for chunk in chunks), max(chunk.seat.filled + len(chunk.tokens) for chunk in chunks))
        slots = [range(chunk.seat.filled, chunk.seat.filled + len(chunk.tokens)) for chunk in self.chunks]
        self._row_M = self._long([chunk.seat.row for chunk in self.chunks for _ in chunk.tokens])
        self._slot_M = self._long([slot for filled in slots for slot in filled])
        self.token_ids_M = self._long([token for chunk in self.chunks for token in chunk.tokens])
        self.position_M = self._long([slot + chunk.ahead for chunk, filled in zip(self.chunks, slots, strict=True) for slot in filled])
        ends = torch.tensor([len(chunk.tokens) for chunk in self.chunks]).cumsum(0) - 1
        self.last_R = ends.to(device)
        """Flat index of each chunk's last token, in the order of `chunks`."""
        rows = [chunk.seat.row for chunk in self._single]
        # Rows that stand together are a view; others are gathered.
        together = bool(rows) and rows == list(range(rows[0], rows[0] + len(rows)))
        self._rows: slice | Tensor = slice(rows[0], rows[0] + len(rows)) if together else self._long(rows)
        self._slots = max((chunk.seat.filled + 1 for chunk in self._single), default=0)
        self._masks: dict[tuple[object, ...], Tensor | None] = {}
        self._groups = self._by_shared_prefix()

    def __call__(
        self,
        layer: int,
        query_1HMD: Tensor,
        key_1GMD: Tensor,
        value_1GMD: Tensor,
        scale: float,
        *,
        window: int | None = None,
        softcap: float | None = None,
    ) -> Tensor:
        """One layer's attention, 1 M H D; the layer's new keys and values are written to their slots first.

        Args:
            window: how many positions back, itself included, a token sees; None for all.
            softcap: bound of the scores' tanh, for models that have one.
        """
        key_RGSD, value_RGSD = self._pool.key_RGSD[layer], self._pool.value_RGSD[layer]
        key_RGSD[self._row_M, :, self._slot_M] = key_1GMD[0].transpose(0, 1)
        value_RGSD[self._row_M, :, self._slot_M] = value_1GMD[0].transpose(0, 1)
        query_MHD = query_1HMD[0].transpose(0, 1)
        heads, groups = query_MHD.shape[1], key_RGSD.shape[1]
        out_MHD = torch.empty_like(query_MHD, memory_format=torch.contiguous_format)
        how = _How(scale=scale, window=window, softcap=softcap)
        if self._single:
            count = len(self._single)
            query_BGQD = query_MHD[:count].reshape(count, groups, heads // groups, -1)
            out_MHD[:count] = self._decode(layer, query_BGQD, how).reshape(count, heads, -1)
        first = len(self._single)
        for chunk in self._several:
            end = first + len(chunk.tokens)
            out_MHD[first:end] = self._read(layer, chunk, query_MHD[first:end], how)
            first = end
        return out_MHD[None]

    # --- one token per row ------------------------------------------------------------------------------------

    def _decode(self, layer: int, query_BGQD: Tensor, how: _How) -> Tensor:
        key_BGSD = self._pool.key_RGSD[layer][self._rows][:, :, : self._slots]
        value_BGSD = self._pool.value_RGSD[layer][self._rows][:, :, : self._slots]
        out_BGQD, log_sum_BGQ = _attend(query_BGQD, key_BGSD, value_BGSD, self._slot_mask(how.window, query_BGQD.dtype), how)
        for number, (prefix, index) in enumerate(self._groups):
            assert prefix.key_LGND is not None and prefix.value_LGND is not None
            rows, groups, share, size = len(index), *query_BGQD.shape[1:]
            together_1GTD = query_BGQD[index].transpose(0, 1).reshape(1, groups, rows * share, size)
            mask = self._prefix_mask(number, how.window, query_BGQD.dtype, share)
            found_1GTD, found_1GT = _attend(together_1GTD, prefix.key_LGND[layer][None], prefix.value_LGND[layer][None], mask, how)
            found = found_1GTD.view(groups, rows, share, size).transpose(0, 1)
            found_sum = found_1GT.view(groups, rows, share).transpose(0, 1)
            out_BGQD[index] = _joined(out_BGQD[index], log_sum_BGQ[index], found, found_sum)
        return out_BGQD

    def _by_shared_prefix(self) -> list[tuple[PrefixTensors, Tensor]]:
        groups: dict[PrefixTensors, list[int]] = {}
        for place, chunk in enumerate(self._single):
            if chunk.seat.shared is not None:
                groups.setdefault(chunk.seat.shared, []).append(place)
        return [(prefix, self._long(places)) for prefix, places in groups.items()]

    def _slot_mask(self, window: int | None, dtype: torch.dtype) -> Tensor:
        """B 1 1 S: each row's own slots, and of those the ones within the window."""
        key = ("slots", window, dtype)
        if key not in self._masks:
            newest_B1 = self._long([chunk.seat.filled for chunk in self._single])[:, None]
            slot_S = torch.arange(self._slots, device=self._device)
            visible_BS = slot_S <= newest_B1
            if window is not None:
                visible_BS &= newest_B1 - slot_S < window
            self._masks[key] = additive(visible_BS, dtype)[:, None, None]
        mask = self._masks[key]
        assert mask is not None
        return mask

    def _prefix_mask(self, number: int, window: int | None, dtype: torch.dtype, share: int) -> Tensor | None:
        """(rows · Q) N: positions of a shared prefix within the window; None where every row sees all of it."""
        if window is None:
            return None
        key = ("prefix", number, window, dtype)
        if key not in self._masks:
            prefix, index = self._groups[number]
            position_B1 = self._long([self._single[place].seat.filled + prefix.positions for place in index.tolist()])[:, None]
            visible_BN = position_B1 - torch.arange(prefix.positions, device=self._device) < window
            self._masks[key] = additive(visible_BN.repeat_interleave(share, 0), dtype)
        return self._masks[key]

    # --- a piece of a prompt ----------------------------------------------------------------------------------

    def _read(self, layer: int, chunk: Chunk, query_THD: Tensor, how: _How) -> Tensor:
        """T H D."""
        row, end = chunk.seat.row, chunk.seat.filled + len(chunk.tokens)
        key_GSD, value_GSD = self._pool.key_RGSD[layer][row, :, :end], self._pool.value_RGSD[layer][row, :, :end]
        if (prefix := chunk.seat.shared) is not None:
            assert prefix.key_LGND is not None and prefix.value_LGND is not None
            key_GSD = torch.cat([prefix.key_LGND[layer], key_GSD], dim=1)
            value_GSD = torch.cat([prefix.value_LGND[layer], value_GSD], dim=1)
        tokens, heads, size = query_THD.shape
        groups = len(key_GSD)
        # The query heads of one KV head stand side by side as one longer query, so that keys are not repeated.
        query_1GTD = query_THD.view(tokens, groups, heads // groups, size).permute(1, 2, 0, 3).reshape(1, groups, -1, size)
        mask = self._causal_mask(chunk, key_GSD.shape[1], how.window, query_THD.dtype, heads // groups)
        out_1GTD, _ = _attend(query_1GTD, key_GSD[None], value_GSD[None], mask, how)
        return out_1GTD.view(groups, heads // groups, tokens, size).permute(2, 0, 1, 3).reshape(tokens, heads, size)

    def _causal_mask(self, chunk: Chunk, keys: int, window: int | None, dtype: torch.dtype, share: int) -> Tensor:
        """(Q · T) S."""
        key = ("chunk", id(chunk), window, dtype)
        if key not in self._masks:
            tokens = len(chunk.tokens)
            position_T1 = torch.arange(keys - tokens, keys, device=self._device)[:, None]
            position_S = torch.arange(keys, device=self._device)
            visible_TS = position_S <= position_T1
            if window is not None:
                visible_TS &= position_T1 - position_S < window
            self._masks[key] = additive(visible_TS.repeat(share, 1), dtype)
        mask = self._masks[key]
        assert mask is not None
        return mask

    def _long(self, values: Sequence[int]) -> Tensor:
        return torch.tensor(values, dtype=torch.long, device=self._device)


@dataclass(frozen=True, slots=True, kw_only=True)
class _How:
    """What a layer asks of its attention."""

    scale: float
    window: int | None
    softcap: float | None


def _attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, how: _How) -> tuple[Tensor, Tensor]:
    """Attention and the log of each query's sum of exponentials: (B G T D, B G T)."""
    if query.device.type == "cpu" and how.softcap is None:
        return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(query, key, value, 0.0, False, attn_mask=mask, scale=how.scale)
    scores = query.float() @ key.float().transpose(2, 3) * how.scale
    if how.softcap is not None:
        scores = how.softcap * torch.tanh(scores / how.softcap)
    if mask is not None:
        scores = scores + mask.float()
    return (torch.softmax(scores, dim=-1) @ value.float()).to(query.dtype), scores.logsumexp(-1)


def _joined(one: Tensor, one_sum: Tensor, other: Tensor, other_sum: Tensor) -> Tensor:
    """Attention over both sets of keys, from attention over each; float32 inside."""
    share = torch.sigmoid(one_sum.float() - other_sum.float())[..., None]
    return (one.float() * share + other.float() * (1 - share)).to(one.dtype)
