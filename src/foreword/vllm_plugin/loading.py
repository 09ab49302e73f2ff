"""The worker's side: writes prefixes into vLLM's paged cache, all of a step at once.

Axes: L layer (of this worker), N virtual position, T position to write (of all requests of the step, one after the other), H KV head (of
this worker), D head dimension.

A key is written through the attention backend's own `do_kv_cache_update`, as vLLM writes what it computes. That respects each backend's
layout, packing and quantisation; copying into the cache by hand does not. All requests of a step go into one call per layer: many small
tensor operations are slow where cores are shared.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from foreword.errors import ConfigError
from foreword.prefix.rotary import rotate
from foreword.vllm_plugin.attaching import Load
from foreword.vllm_plugin.files import Source, read_source

NULL_BLOCK = 0
"""vLLM's block for positions that nothing will attend to, such as those that have left a sliding window."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadyPrefix:
    """A prefix as this worker needs it: its own layers and heads, in the model's dtype, on its device."""

    key_LNHD: Tensor
    value_LNHD: Tensor

    @property
    def nbytes(self) -> int:
        """Bytes of both tensors."""
        return self.key_LNHD.nbytes + self.value_LNHD.nbytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """What of a model lies on one worker.

    Attributes:
        layers: indices in the whole model, ascending.
        heads: KV heads.
        dtype: that attention is fed with; the cache's own may be narrower.
    """

    layers: tuple[int, ...]
    heads: range
    dtype: torch.dtype
    device: torch.device

    def of(self, source: Source) -> ReadyPrefix:
        """Reads a prefix and keeps this worker's share.

        Raises:
            PrefixFileError: it cannot be read any more.
        """
        prefix = read_source(source)
        # Positions after a prefix count on from its own number of keys, so a shifted one is turned back to where they start.
        key_LHND = rotate(prefix.keys(), prefix.header.geometry, -prefix.header.first_position)
        return ReadyPrefix(key_LNHD=self._cut(key_LHND), value_LNHD=self._cut(prefix.values()))

    def _cut(self, tensor_LHND: Tensor) -> Tensor:
        part_LHND = tensor_LHND[list(self.layers), self.heads.start : self.heads.stop]
        return part_LHND.transpose(1, 2).to(device=self.device, dtype=self.dtype).contiguous()


class ResidentPrefixes:
    """Prefixes ready in memory, the least recently used given up first when they take more than they may."""

    def __init__(self, share: Share, *, most_bytes: int) -> None:
        self._share = share
        self._most_bytes = most_bytes
        self._ready: OrderedDict[str, ReadyPrefix] = OrderedDict()
        self.nbytes = 0

    def __len__(self) -> int:
        return len(self._ready)

    def get(self, source: Source) -> ReadyPrefix:
        """The prefix, read from its file unless it is resident. Raises `PrefixFileError` where it cannot be read any more."""
        ready = self._ready.get(source.key)
        if ready is None:
            ready = self._ready[source.key] = self._share.of(source)
            self.nbytes += ready.nbytes
        self._ready.move_to_end(source.key)
        return ready

    def trim(self) -> None:
        """Gives up what exceeds the limit; called between steps, when nothing needs them."""
        while self.nbytes > self._most_bytes and self._ready:
            _, given_up = self._ready.popitem(last=False)
            self.nbytes -= given_up.nbytes


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheGroup:
    """A KV cache group of this worker: its place among all groups, and its layers as (index in `Share.layers`, attention layer)."""

    index: int
    block_size: int
    layers: tuple[tuple[int, Any], ...]


def write(groups: Sequence[CacheGroup], loads: Sequence[Load], resident: ResidentPrefixes, device: torch.device) -> None:
    """Writes the keys and values of all loads into the cache.

    Raises:
        PrefixFileError: a prefix cannot be read any more; nothing was written.
    """
    ready = [(resident.get(load.source), load) for load in loads]
    key_LTHD = torch.cat([prefix.key_LNHD[:, load.start : load.stop] for prefix, load in ready], dim=1)
    value_LTHD = torch.cat([prefix.value_LNHD[:, load.start : load.stop] for prefix, load in ready], dim=1)
    for group in groups:
        slots = slots_of(loads, group.index, group.block_size)
        kept = slots >= 0
        slot_T = torch.from_numpy(slots[kept]).to(device)
        index_T = None if kept.all() else torch.from_numpy(np.flatnonzero(kept)).to(device)
        for place, layer in group.layers:
            key_THD, value_THD = key_LTHD[place], value_LTHD[place]
            if index_T is not None:
                key_THD, value_THD = key_THD[index_T], value_THD[index_T]
            layer.impl.do_kv_cache_update(layer, key_THD, value_THD, layer.kv_cache, slot_T)
    resident.trim()


def slots_of(loads: Sequence[Load], group: int, block_size: int) -> np.ndarray:
    """Where each position goes in a group's cache, all loads one after the other; -1 where it is not kept."""
    parts = []
    for load in loads:
        position = np.arange(load.start, load.stop, dtype=np.int64)
        block = np.asarray(load.blocks[group], dtype=np.int64)[position // block_size]
        parts.append(np.where(block == NULL_BLOCK, -1, block * block_size + position % block_size))
    return np.concatenate(parts)


def heads_of(rank: int, *, world: int, total: int) -> range:
    """KV heads of one tensor-parallel worker, shared out as vLLM does it: some of them each, or one on several where there are too few."""
    if total >= world:
        own = total // world
        return range(rank * own, (rank + 1) * own)
    first = rank // (world // total)
    return range(first, first + 1)


def groups_of(kv_cache_groups: Sequence[Any], layers: Mapping[str, Any]) -> tuple[tuple[int, ...], tuple[CacheGroup, ...]]:
    """This worker's layer indices, ascending, and its cache groups.

    Args:
        kv_cache_groups: of vLLM's `KVCacheConfig`.
        layers: attention layers by name, of vLLM's static forward context.

    Raises:
        ConfigError: a layer's attention cannot take a prefix.
    """
    found = [list(_own_layers(group.layer_names, layers)) for group in kv_cache_groups]
    order = sorted(index for group in found for index, _ in group)
    if len(set(order)) != len(order):
        raise ConfigError("Two attention layers of this model have the same index (a draft model?); a prefix cannot tell them apart.")
    place = {index: number for number, index in enumerate(order)}
    groups = tuple(
        CacheGroup(
            index=number,
            block_size=group.kv_cache_spec.block_size,
            layers=tuple((place[index], layer) for index, layer in own),
        )
        for number, (group, own) in enumerate(zip(kv_cache_groups, found, strict=True))
    )
    return tuple(order), groups


def _own_layers(names: Sequence[str], layers: Mapping[str, Any]) -> Iterator[tuple[int, Any]]:
    for name in names:
        layer = layers.get(name)
        if layer is None or getattr(layer, "kv_sharing_target_layer_name", None):
            continue
        # `impl` of latent attention takes compressed keys, and of some backends writes the cache inside the kernel alone.
        if not hasattr(getattr(layer, "impl", None), "do_kv_cache_update") or not hasattr(layer, "num_kv_heads") or _is_latent(layer):
            raise ConfigError(
                f"The attention of layer `{name}` ({type(getattr(layer, 'impl', layer)).__name__}) has no keys and values that could be "
                "written from outside. Choose another attention backend, or a model with plain attention."
            )
        yield layer_index(name), layer


def _is_latent(layer: Any) -> bool:
    return type(layer).__name__.startswith("MLA")


def layer_index(name: str) -> int:
    """The layer's number in the model: `model.layers.12.self_attn.attn` is 12.

    Raises:
        ConfigError: the name has none, or several.
    """
    numbers = re.findall(r"(?:^|\.)(\d+)(?=\.|$)", name)
    if len(numbers) != 1:
        raise ConfigError(f"The attention layer `{name}` does not say which layer of the model it is; a prefix cannot be matched to it.")
    return int(numbers[0])
