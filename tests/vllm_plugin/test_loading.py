"""Writing prefixes into a paged cache. Axes: L layer, N virtual position, H KV head, D head dimension."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from foreword.errors import ConfigError, PrefixFileError
from foreword.prefix.operations import shift
from foreword.vllm_plugin.attaching import Load
from foreword.vllm_plugin.files import Source
from foreword.vllm_plugin.loading import ResidentPrefixes, Share, groups_of, heads_of, layer_index, slots_of, write

CPU = torch.device("cpu")


class PagedAttention:
    """An attention layer whose cache has blocks, written by slot as vLLM's backends do."""

    BLOCKS, BLOCK_SIZE = 8, 4

    def __init__(self, heads: int, head_dim: int = 8) -> None:
        self.num_kv_heads = heads
        self.kv_cache = torch.full((2, self.BLOCKS * self.BLOCK_SIZE, heads, head_dim), float("nan"))
        self.impl = self
        self.calls = 0

    def do_kv_cache_update(self, layer: Any, key: torch.Tensor, value: torch.Tensor, kv_cache: torch.Tensor, slots: torch.Tensor) -> None:
        assert layer is self and kv_cache is self.kv_cache and key.shape == value.shape == (len(slots), *self.kv_cache.shape[2:])
        kv_cache[0, slots], kv_cache[1, slots] = key, value
        self.calls += 1

    def read(self, blocks: list[int], positions: range) -> torch.Tensor:
        """Keys and values of a request's positions: 2 N H D."""
        slots = [blocks[position // self.BLOCK_SIZE] * self.BLOCK_SIZE + position % self.BLOCK_SIZE for position in positions]
        return self.kv_cache[:, slots]


def group(*names: str, block_size: int = PagedAttention.BLOCK_SIZE) -> Any:
    return SimpleNamespace(layer_names=list(names), kv_cache_spec=SimpleNamespace(block_size=block_size))


def source_of(store, prefix) -> Source:
    path = store.publish(prefix).path
    return Source(reference=prefix.name, digest=prefix.header.digest, first_position=prefix.header.first_position, paths=(str(path),))


def share(*, layers: tuple[int, ...] = (0, 1), heads: range = range(4)) -> Share:
    return Share(layers=layers, heads=heads, dtype=torch.float32, device=CPU)


def expected(prefix, layer: int, positions: range, heads: range = range(4)) -> torch.Tensor:
    both = torch.stack([prefix.keys()[layer], prefix.values()[layer]])
    return both[:, heads.start : heads.stop, positions.start : positions.stop].transpose(1, 2)


def test_all_loads_of_a_step_are_written_in_one_call_per_layer(store, make_prefix):
    long, short = make_prefix("long", positions=7, seed=1), make_prefix("short", positions=3, seed=2)
    layers = {"model.layers.0.attn": PagedAttention(4), "model.layers.1.attn": PagedAttention(4)}
    _, groups = groups_of([group(*layers)], layers)
    loads = [
        Load(source=source_of(store, long), start=4, stop=7, blocks=((3, 1),)),
        Load(source=source_of(store, short), start=0, stop=3, blocks=((5, 6),)),
    ]
    write(groups, loads, ResidentPrefixes(share(), most_bytes=10**9), CPU)
    for index, layer in enumerate(layers.values()):
        assert layer.calls == 1
        assert torch.equal(layer.read([3, 1], range(4, 7)), expected(long, index, range(4, 7)))
        assert torch.equal(layer.read([5, 6], range(3)), expected(short, index, range(3)))
        assert int(layer.kv_cache[0, :, 0, 0].isfinite().sum()) == 6, "more slots were written than asked for"


def test_positions_outside_a_sliding_window_are_left_out(store, make_prefix):
    prefix = make_prefix(positions=8)
    full, sliding = PagedAttention(4), PagedAttention(4)
    layers = {"model.layers.0.attn": full, "model.layers.1.attn": sliding}
    _, groups = groups_of([group("model.layers.0.attn"), group("model.layers.1.attn")], layers)
    write(
        groups,
        [Load(source=source_of(store, prefix), start=0, stop=8, blocks=((1, 2), (0, 3)))],
        ResidentPrefixes(share(), most_bytes=10**9),
        CPU,
    )
    assert torch.equal(full.read([1, 2], range(8)), expected(prefix, 0, range(8)))
    assert torch.equal(sliding.read([0, 3], range(4, 8)), expected(prefix, 1, range(4, 8)))
    assert not sliding.kv_cache[:, :4].isfinite().any(), "the null block was written"


def test_groups_may_have_blocks_of_different_sizes():
    source = Source(reference="x", digest="0", first_position=0, paths=())
    loads = [Load(source=source, start=1, stop=5, blocks=((2, 3, 4), (9,))), Load(source=source, start=0, stop=1, blocks=((5,), (0,)))]
    assert slots_of(loads, 0, 2).tolist() == [5, 6, 7, 8, 10]
    assert slots_of(loads, 1, 8).tolist() == [73, 74, 75, 76, -1]
    assert slots_of(loads, 0, 2).dtype == np.int64


def test_a_worker_holds_its_own_layers_and_heads(store, make_prefix):
    prefix = make_prefix(positions=3)
    ready = share(layers=(1,), heads=range(2, 4)).of(source_of(store, prefix))
    assert ready.key_LNHD.shape == (1, 3, 2, 8) and ready.key_LNHD.is_contiguous()
    both = torch.stack([ready.key_LNHD[0], ready.value_LNHD[0]])
    assert torch.equal(both, expected(prefix, 1, range(3), range(2, 4)))


def test_a_shifted_prefix_is_turned_back(store, make_prefix):
    prefix = make_prefix(positions=4)
    moved = shift(prefix, 9)
    ready, plain = share().of(source_of(store, moved)), share().of(source_of(store, prefix))
    torch.testing.assert_close(ready.key_LNHD, plain.key_LNHD)
    assert not torch.allclose(moved.keys(), prefix.keys())


@pytest.mark.parametrize(
    ("world", "total", "expected_heads"),
    [(1, 3, [[0, 1, 2]]), (2, 4, [[0, 1], [2, 3]]), (4, 2, [[0], [0], [1], [1]]), (2, 1, [[0], [0]])],
)
def test_heads_are_shared_out_as_vllm_does(world, total, expected_heads):
    assert [list(heads_of(rank, world=world, total=total)) for rank in range(world)] == expected_heads


def test_the_least_recently_used_prefix_is_given_up(store, make_prefix):
    sources = [source_of(store, make_prefix(f"p{number}", seed=number)) for number in range(3)]
    one = share().of(sources[0]).nbytes
    resident = ResidentPrefixes(share(), most_bytes=2 * one)
    first = resident.get(sources[0])
    for source in (sources[1], sources[0], sources[2]):
        resident.get(source)
        resident.trim()
    assert len(resident) == 2 and resident.nbytes == 2 * one
    assert resident.get(sources[0]) is first, "it was used more recently than the second"


def test_a_step_may_need_more_than_the_limit(store, make_prefix):
    layers = {"model.layers.0.attn": PagedAttention(4), "model.layers.1.attn": PagedAttention(4)}
    _, groups = groups_of([group(*layers)], layers)
    prefixes = [make_prefix(f"p{number}", positions=4, seed=number) for number in range(3)]
    resident = ResidentPrefixes(share(), most_bytes=0)
    loads = [Load(source=source_of(store, prefix), start=0, stop=4, blocks=((number + 1,),)) for number, prefix in enumerate(prefixes)]
    write(groups, loads, resident, CPU)
    for number, prefix in enumerate(prefixes):
        assert torch.equal(layers["model.layers.0.attn"].read([number + 1], range(4)), expected(prefix, 0, range(4)))
    assert len(resident) == 0 and resident.nbytes == 0


def test_nothing_is_written_where_a_file_is_gone(store, make_prefix):
    layers = {"model.layers.0.attn": PagedAttention(4), "model.layers.1.attn": PagedAttention(4)}
    _, groups = groups_of([group(*layers)], layers)
    sources = [source_of(store, make_prefix(name, seed=seed)) for seed, name in enumerate("ab")]
    store.remove("b", all=True)
    loads = [Load(source=source, start=0, stop=4, blocks=((number + 1,),)) for number, source in enumerate(sources)]
    with pytest.raises(PrefixFileError, match="`b` cannot be read"):
        write(groups, loads, ResidentPrefixes(share(), most_bytes=10**9), CPU)
    assert all(layer.calls == 0 for layer in layers.values())


def test_another_file_in_its_place_is_not_served(store, make_prefix, tmp_path):
    source = source_of(store, make_prefix(seed=1))
    make_prefix(seed=2).save(source.paths[0])
    with pytest.raises(PrefixFileError, match="another prefix"):
        share().of(source)


def test_layers_of_one_pipeline_stage_keep_their_numbers():
    layers = {f"model.layers.{number}.self_attn.attn": PagedAttention(4) for number in (12, 13)}
    own, groups = groups_of([group(*reversed(layers))], layers)
    assert own == (12, 13)
    assert [place for place, _ in groups[0].layers] == [1, 0]


@pytest.mark.parametrize("name", ["lm_head.attn", "model.layers.1.experts.2.attn"])
def test_a_layer_without_a_clear_number_is_refused(name):
    with pytest.raises(ConfigError, match="which layer"):
        layer_index(name)


def test_attention_that_cannot_be_written_from_outside_is_refused_at_start():
    bare = SimpleNamespace(impl=SimpleNamespace(), num_kv_heads=4)
    with pytest.raises(ConfigError, match="no keys and values that could be written"):
        groups_of([group("model.layers.0.attn")], {"model.layers.0.attn": bare})
    twice = {"model.layers.0.attn": PagedAttention(4), "draft.layers.0.attn": PagedAttention(4)}
    with pytest.raises(ConfigError, match="same index"):
        groups_of([group(*twice)], twice)
