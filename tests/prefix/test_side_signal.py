"""A side signal's file, and what can be none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from foreword.errors import PrefixError, PrefixFileError, PrefixMismatch
from foreword.prefix.artifact import Prefix
from foreword.prefix.operations import shift
from foreword.prefix.rotary import rotate
from foreword.prefix.side_signal import SideSignal


@pytest.fixture
def prefix(make_prefix: Any) -> Prefix:
    return make_prefix(positions=7)


@pytest.fixture
def side(prefix: Prefix) -> SideSignal:
    heads = 2 * prefix.header.geometry.kv_heads
    return SideSignal.of(prefix, torch.linspace(-1, 1, prefix.header.geometry.layers * heads).view(-1, heads))


def test_keys_stand_right_before_position_0(prefix: Prefix, side: SideSignal):
    torch.testing.assert_close(side.key_LHND, rotate(prefix.keys(), prefix.header.geometry, -prefix.positions), atol=1e-5, rtol=1e-5)
    assert torch.equal(side.value_LHND, prefix.values()) and side.positions == prefix.positions


def test_where_the_prefix_stood_does_not_matter(prefix: Prefix, side: SideSignal):
    moved = SideSignal.of(shift(prefix, 5), side.gate_LQ)
    torch.testing.assert_close(moved.key_LHND, side.key_LHND, atol=1e-4, rtol=1e-4)


def test_saved_and_loaded_it_is_the_same_bit_for_bit(side: SideSignal, tmp_path: Path):
    side.save(tmp_path / "words.safetensors")
    side.save(tmp_path / "words.safetensors")
    found = SideSignal.load(tmp_path / "words.safetensors")
    assert (found.name, found.fingerprint) == (side.name, side.fingerprint)
    for label in ("key_LHND", "value_LHND", "gate_LQ"):
        assert torch.equal(getattr(found, label), getattr(side, label)), label
    assert [file.name for file in tmp_path.iterdir()] == ["words.safetensors"]


def test_a_file_cut_short_altered_or_of_another_kind(side: SideSignal, prefix: Prefix, tmp_path: Path):
    path = tmp_path / "words.safetensors"
    with pytest.raises(PrefixFileError, match="not a sound side signal"):
        SideSignal.load(path)
    side.save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-4])
    with pytest.raises(PrefixFileError, match="not a sound side signal"):
        SideSignal.load(path)
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(PrefixFileError, match=r"do not match the header's digest|NaN"):
        SideSignal.load(path)
    prefix.save(path)
    with pytest.raises(PrefixFileError, match="is no side signal"):
        SideSignal.load(path)


def test_a_folder_that_is_missing(side: SideSignal, tmp_path: Path):
    with pytest.raises(PrefixFileError, match="Cannot write side signal"):
        side.save(tmp_path / "nowhere" / "words.safetensors")


def test_another_models(side: SideSignal):
    side.check(side.fingerprint)
    with pytest.raises(PrefixMismatch, match="weights"):
        side.check(side.fingerprint.model_copy(update={"weights": "f" * 64}))


def test_gates_that_do_not_fit(prefix: Prefix, side: SideSignal):
    layers, heads = side.gate_LQ.shape
    bad: list[Any] = [torch.zeros(layers + 1, heads), torch.zeros(layers, heads + 1), torch.zeros(layers), torch.zeros(layers, heads).int()]
    for gate_LQ in bad:
        with pytest.raises(PrefixError, match="`gate_LQ` must have"):
            SideSignal.of(prefix, gate_LQ)
    with pytest.raises(PrefixError, match="NaN"):
        side.gated(torch.full((layers, heads), torch.nan))
    assert side.gated(torch.zeros(layers, heads)).gate_LQ.abs().max() == 0
