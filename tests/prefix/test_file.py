"""Saving and loading: bit for bit, whole or not at all."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from foreword.errors import PrefixError, PrefixFileError
from foreword.prefix.artifact import DTYPES, Prefix, tensor_bytes
from foreword.prefix.header import Geometry, read_header
from foreword.prefix.operations import verify


def same_bits(left: Prefix, right: Prefix) -> bool:
    pairs = zip(left.tensors.values(), right.tensors.values(), strict=True)
    return all(a.dtype == b.dtype and a.shape == b.shape and tensor_bytes(a) == tensor_bytes(b) for a, b in pairs)


@settings(max_examples=60, deadline=None)
@given(
    dtype=st.sampled_from(sorted(DTYPES)),
    positions=st.integers(0, 7),
    layers=st.integers(1, 3),
    heads=st.integers(1, 3),
    head_dim=st.integers(1, 9),
    seed=st.integers(0, 2**31),
    text=st.none() | st.text(st.characters(exclude_categories=["Cs"])),
    quality=st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), st.floats(allow_nan=False, allow_infinity=False)),
)
def test_save_then_load_is_bit_exact(tmp_path_factory, make_prefix, dtype, positions, layers, heads, head_dim, seed, text, quality):
    geometry = Geometry(layers=layers, kv_heads=heads, head_dim=head_dim, rotary=())
    prefix = make_prefix(positions=positions, dtype=dtype, seed=seed, geometry=geometry, text_tail=text, quality=quality)
    path = tmp_path_factory.getbasetemp() / "round.safetensors"
    prefix.save(path)
    for loaded in (Prefix.load(path), Prefix.load(path, verify=False)):
        assert loaded.header == prefix.header
        assert same_bits(loaded, prefix)
    assert read_header(path) == verify(path) == prefix.header


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_odd_numbers_survive(make_prefix, tmp_path, dtype):
    info = torch.finfo(DTYPES[dtype])
    odd = torch.tensor([0.0, -0.0, info.tiny, info.tiny / 2, info.max, info.min, info.eps, 1 / 3]).to(DTYPES[dtype])
    prefix = make_prefix(dtype=dtype, key_LHND=odd.expand(2, 3, 5, 8))
    prefix.save(tmp_path / "p")
    assert same_bits(Prefix.load(tmp_path / "p"), prefix)


def test_equal_prefixes_give_equal_bytes(make_prefix, tmp_path):
    prefix = make_prefix(dtype="int8")
    prefix.save(tmp_path / "a")
    Prefix.load(tmp_path / "a").save(tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_other_readers_of_safetensors_can_read_it(make_prefix, tmp_path):
    from safetensors.torch import load_file

    prefix = make_prefix(dtype="int8")
    prefix.save(tmp_path / "p.safetensors")
    tensors = load_file(tmp_path / "p.safetensors")
    assert all(torch.equal(tensors[label], tensor) for label, tensor in prefix.tensors.items())


@pytest.mark.skipif(sys.platform != "linux", reason="mappings are listed in /proc on Linux only")
def test_loading_maps_the_file(make_prefix, tmp_path):
    make_prefix().save(tmp_path / "mapped.safetensors")
    prefix = Prefix.load(tmp_path / "mapped.safetensors")
    assert str(tmp_path / "mapped.safetensors") in Path("/proc/self/maps").read_text()
    assert prefix.key_LHND.data_ptr() % 4 == 0


def test_a_loaded_prefix_outlives_its_file(make_prefix, tmp_path):
    path = tmp_path / "p"
    make_prefix(seed=1).save(path)
    old = Prefix.load(path, verify=False)
    make_prefix(seed=2).save(path)
    path.unlink()
    assert same_bits(old, make_prefix(seed=1))


@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_a_truncated_file_is_refused(make_prefix, tmp_path, dtype):
    path = tmp_path / "p"
    make_prefix(positions=2, dtype=dtype).save(path)
    raw = path.read_bytes()
    for length in range(0, len(raw), 2 if dtype == "int8" else 5):
        path.write_bytes(raw[:length])
        with pytest.raises(PrefixFileError):
            Prefix.load(path, verify=False)


@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_a_flipped_bit_is_refused(make_prefix, tmp_path, dtype):
    path = tmp_path / "p"
    make_prefix(positions=1, dtype=dtype).save(path)
    raw = bytearray(path.read_bytes())
    for index in range(0, len(raw), 2 if dtype == "float32" else 3):
        bit = 1 << (index * 5 % 8)
        raw[index] ^= bit
        path.write_bytes(raw)
        with pytest.raises(PrefixFileError):
            Prefix.load(path)
        raw[index] ^= bit
    path.write_bytes(raw)
    Prefix.load(path)


def test_numbers_that_are_not_finite_are_refused_even_with_a_right_digest(make_prefix, tmp_path):
    from dataclasses import replace

    from foreword.prefix.artifact import digest

    prefix = make_prefix()
    prefix.value_LHND[0, 0, 0, 0] = float("nan")
    prefix = replace(prefix, header=prefix.header.changed(digest=digest(prefix.header, prefix.tensors)))
    prefix.save(tmp_path / "p")
    with pytest.raises(PrefixFileError, match="NaN"):
        verify(tmp_path / "p")


def test_a_prefix_changed_in_place_is_not_saved(make_prefix, tmp_path):
    prefix = make_prefix()
    prefix.key_LHND.zero_()
    with pytest.raises(PrefixError, match="changed since"):
        prefix.save(tmp_path / "p")
    assert list(tmp_path.iterdir()) == []


def test_a_missing_folder_is_named(make_prefix, tmp_path):
    with pytest.raises(PrefixFileError, match="Make the folder"):
        make_prefix().save(tmp_path / "none" / "p")


def test_a_folder_in_the_way_is_named_and_nothing_stays(make_prefix, tmp_path):
    (tmp_path / "p").mkdir()
    with pytest.raises(PrefixFileError, match="Cannot write"):
        make_prefix().save(tmp_path / "p")
    assert [entry.name for entry in tmp_path.iterdir()] == ["p"]


def test_a_full_disk_leaves_the_old_file_and_no_other(make_prefix, tmp_path):
    old, large = tmp_path / "p", tmp_path / "large"
    make_prefix(seed=1).save(old)
    make_prefix(positions=500).save(large)
    before = old.read_bytes()
    # The kernel refuses writes past the limit, as it does on a full disk, part-way through the tensors.
    code = f"""
import resource
from foreword.errors import PrefixFileError
from foreword.prefix.artifact import Prefix
large = Prefix.load({str(large)!r})
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
try:
    large.save({str(old)!r})
except PrefixFileError as error:
    assert "Free some space" in str(error) and "untouched" in str(error), error
else:
    raise SystemExit("the write was not refused")
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    assert old.read_bytes() == before
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["large", "p"]
