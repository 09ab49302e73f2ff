"""Shift, compose, quantise, diff."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from foreword.errors import PrefixError, PrefixMismatch, WindowError
from foreword.prefix.artifact import Prefix
from foreword.prefix.header import Geometry
from foreword.prefix.operations import compose, dequantize, diff, quantize, shift
from foreword.prefix.rotary import rotate

ROUNDING = 1e-5


def close(left: torch.Tensor, right: torch.Tensor) -> None:
    torch.testing.assert_close(left, right, atol=ROUNDING, rtol=0)


@settings(max_examples=40, deadline=None)
@given(first=st.integers(0, 1000), second=st.integers(0, 1000))
def test_shift_by_way_of_another_position(make_prefix, first, second):
    prefix = make_prefix()
    direct, by_way = shift(prefix, second), shift(shift(prefix, first), second)
    close(by_way.keys(), direct.keys())
    close(shift(by_way, 0).keys(), prefix.keys())
    assert direct.header.first_position == by_way.header.first_position == second
    assert torch.equal(direct.values(), prefix.values())


def test_shift_records_where_it_came_from(make_prefix):
    prefix = make_prefix(quality={"bleu": 56.0}, recipe={"rate": 0.1})
    moved = shift(prefix, 9)
    assert shift(prefix, 0) is prefix
    assert moved.header.parents == (prefix.header.digest,)
    assert moved.header.recipe == {"rate": 0.1, "operations": ["shift 9"]}
    assert shift(moved, 2).header.recipe["operations"] == ["shift 9", "shift 2"]
    assert moved.header.quality == prefix.header.quality
    assert shift(make_prefix(dtype="int8"), 9).header.dtype == "float32"
    with pytest.raises(PrefixError, match="0 or more"):
        shift(prefix, -1)


def test_absolute_positions_cannot_shift_or_follow(make_prefix):
    fixed = make_prefix(geometry=Geometry(layers=2, kv_heads=3, head_dim=8, rotary=()))
    with pytest.raises(PrefixError, match="absolute position"):
        shift(fixed, 1)
    with pytest.raises(PrefixError, match="absolute position"):
        compose([fixed, fixed], "two")
    assert torch.equal(compose([fixed], "one").keys(), fixed.keys())


def test_compose_keeps_one_sink_and_turns_what_follows(make_prefix, geometry):
    parts = [make_prefix(positions=4, seed=1), make_prefix(positions=6, seed=2, sink=2), make_prefix(positions=3, seed=3)]
    whole = compose(parts, "a+b+c")
    assert whole.positions == 4 + (6 - 2) + (3 - 1)
    assert (whole.header.kind, whole.header.sink, whole.header.first_position) == ("composed", 1, 0)
    assert whole.header.parents == tuple(part.header.digest for part in parts)
    assert torch.equal(whole.keys()[:, :, :4], parts[0].keys())
    # The second part's third position (index 2) now stands at 4, the third's second (index 1) at 8.
    close(whole.keys()[:, :, 4:8], rotate(parts[1].keys()[:, :, 2:], geometry, 4 - 2))
    close(whole.keys()[:, :, 8:], rotate(parts[2].keys()[:, :, 1:], geometry, 8 - 1))
    expected = [parts[0].values(), parts[1].values()[:, :, 2:], parts[2].values()[:, :, 1:]]
    assert torch.equal(whole.values(), torch.cat(expected, dim=2))


def test_splitting_a_text_and_composing_gives_it_back(make_prefix, geometry):
    """Two halves whose keys were encoded as if each began at 0 (the second behind its own sink) become the whole again."""
    whole = make_prefix(positions=7)
    key_LHND, value_LHND = whole.keys(), whole.values()
    first = make_prefix(key_LHND=key_LHND[:, :, :4], value_LHND=value_LHND[:, :, :4], positions=4)
    rest = torch.cat([key_LHND[:, :, :1], rotate(key_LHND[:, :, 4:], geometry, -3)], dim=2)
    second = make_prefix(key_LHND=rest, value_LHND=torch.cat([value_LHND[:, :, :1], value_LHND[:, :, 4:]], dim=2), positions=4)
    composed = compose([first, second], "whole")
    close(composed.keys(), key_LHND)
    assert torch.equal(composed.values(), value_LHND)


def test_a_zero_length_part_changes_nothing(make_prefix):
    empty, part = make_prefix(positions=0), make_prefix(positions=4, sink=2)
    for parts in ([empty, part], [part, empty], [empty, part, empty]):
        whole = compose(parts, "whole")
        assert torch.equal(whole.keys(), part.keys()) and torch.equal(whole.values(), part.values())
        assert whole.header.sink == 2
    assert compose([empty, empty], "nothing").positions == 0


def test_composing_is_associative_in_its_numbers(make_prefix):
    a, b, c = (make_prefix(positions=3 + seed, seed=seed) for seed in range(3))
    left = compose([compose([a, b], "ab"), c], "abc")
    right = compose([a, compose([b, c], "bc")], "abc")
    close(left.keys(), right.keys())
    assert torch.equal(left.values(), right.values())


def test_shifted_parts_are_put_in_place(make_prefix):
    a, b = make_prefix(seed=1), make_prefix(seed=2)
    close(compose([a, shift(b, 40)], "ab").keys(), compose([a, b], "ab").keys())
    moved = compose([shift(a, 10), b], "ab")
    assert moved.header.first_position == 10
    close(shift(moved, 0).keys(), compose([a, b], "ab").keys())


def test_composed_header(make_prefix):
    shared = {"training_data": "d" * 64, "licence": "MIT"}
    a = make_prefix(**shared, name="a", text_tail="tel 0123", instruction="Be brief.", quality={"bleu": 1.0})
    b = make_prefix(**shared | {"licence": "CC-BY-4.0"}, name="b", text_tail="id 77", instruction="Be brief.")
    header = compose([a, b, a], "a+b+a").header
    assert (header.text_tail, header.instruction, header.licence) == ("tel 0123\nid 77", "Be brief.", "MIT AND CC-BY-4.0")
    assert (header.training_data, header.quality) == ("d" * 64, {})
    assert [part["name"] for part in header.recipe["composed"]] == ["a", "b", "a"]
    assert compose([a, make_prefix()], "unknown").header.licence is None


def test_compose_takes_the_widest_dtype(make_prefix):
    def dtype(*dtypes: str) -> str:
        return compose([make_prefix(dtype=dtype) for dtype in dtypes], "whole").header.dtype

    assert dtype("bfloat16", "bfloat16") == "bfloat16"
    assert dtype("bfloat16", "float16") == dtype("int8", "bfloat16") == dtype("float32", "float16") == "float32"


def test_compose_refuses(make_prefix, fingerprint, geometry):
    prefix = make_prefix()
    with pytest.raises(PrefixError, match="at least one"):
        compose([], "none")
    with pytest.raises(PrefixMismatch, match="weights"):
        compose([prefix, make_prefix(fingerprint=fingerprint.model_copy(update={"weights": "f" * 64}))], "two")
    slower = geometry.rotary[0].model_copy(update={"inverse_frequencies": (1.0, 0.5, 0.2, 0.1)})
    with pytest.raises(PrefixMismatch, match="rotary"):
        compose([prefix, make_prefix(geometry=geometry.model_copy(update={"rotary": (slower,)}))], "two")
    with pytest.raises(PrefixError, match="continuation"):
        compose([prefix, make_prefix(prompt_format="continuation")], "two")
    with pytest.raises(PrefixError, match="name"):
        compose([prefix, prefix], "Two")


def test_compose_minds_the_window(make_prefix):
    parts = [make_prefix(positions=5), make_prefix(positions=5)]
    assert compose(parts, "two", window=10).positions == 9
    with pytest.raises(WindowError, match="window has 9"):
        compose(parts, "two", window=9)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**31), exponent=st.integers(-30, 30), dtype=st.sampled_from(["float32", "bfloat16"]))
def test_int8_is_off_by_half_a_step_at_most(make_prefix, seed, exponent, dtype):
    scaled = make_prefix(seed=seed, dtype=dtype)
    prefix = make_prefix(dtype=dtype, key_LHND=scaled.key_LHND * 2.0**exponent, value_LHND=scaled.value_LHND)
    small = quantize(prefix)
    for exact, rounded in ((prefix.keys(torch.float32), small.keys()), (prefix.values(torch.float32), small.values())):
        step_LHN = exact.abs().amax(dim=-1) / 127
        # Half a step, and float32's own rounding of scale and product: a few parts in 2**24 of the largest number.
        bound = step_LHN[..., None] * (0.5 + 127 * 4 * 2.0**-24)
        assert bool(((exact - rounded).abs() <= bound).all())


def test_quantize_header_and_size(make_prefix):
    prefix = make_prefix(quality={"bleu": 56.0}, positions=50)
    small = quantize(prefix)
    assert (small.header.dtype, small.header.quality, small.header.parents) == ("int8", {}, (prefix.header.digest,))
    # A byte a number, and four a scale: one for each row of the head dimension, which is 8 here and 64 or more in a model.
    assert small.nbytes == prefix.nbytes / 4 + 2 * 4 * 2 * 3 * 50
    assert quantize(small) is small
    wide = dequantize(small, "bfloat16")
    assert wide.header.dtype == "bfloat16" and torch.equal(wide.keys(), small.keys(torch.bfloat16))
    assert dequantize(prefix) is prefix
    with pytest.raises(PrefixError, match="int8"):
        dequantize(small, "int8")


@pytest.mark.parametrize("value", [0.0, 1e-45, 1e-38, 3e38])
def test_quantize_at_the_edges_of_float32(make_prefix, value):
    prefix = make_prefix(key_LHND=torch.full((2, 3, 5, 8), value))
    torch.testing.assert_close(quantize(prefix).keys(), prefix.keys(), rtol=1e-5, atol=1e-37)


def test_quantize_zero_positions(make_prefix):
    small = quantize(make_prefix(positions=0))
    assert (small.header.dtype, small.positions) == ("int8", 0)
    assert dequantize(small).keys().shape == (2, 3, 0, 8)


def test_dequantize_into_a_dtype_that_is_too_narrow(make_prefix):
    with pytest.raises(PrefixError, match="infinite"):
        dequantize(quantize(make_prefix(key_LHND=torch.full((2, 3, 5, 8), 1e6))), "float16")


def test_operations_save_and_load(make_prefix, tmp_path):
    for index, prefix in enumerate(
        [compose([make_prefix(), make_prefix(seed=1)], "a+b"), quantize(make_prefix()), shift(make_prefix(), 3)]
    ):
        prefix.save(tmp_path / str(index))
        assert Prefix.load(tmp_path / str(index)).header == prefix.header


def test_diff(make_prefix):
    prefix = make_prefix()
    same = diff(prefix, prefix)
    assert same.fields == {} and {entry.cosine for entry in same.keys + same.values} == {1.0}
    key_LHND = prefix.keys().clone()
    key_LHND[1] *= -1
    other = diff(prefix, make_prefix(key_LHND=key_LHND, name="other"))
    assert set(other.fields) == {"name", "digest", "created"}
    assert other.keys[0].max_abs == other.values[1].mean_abs == 0.0
    assert other.keys[1].cosine == pytest.approx(-1)
    assert other.keys[1].max_abs == pytest.approx(2 * float(prefix.keys()[1].abs().max()))
    longer = diff(prefix, make_prefix(positions=6))
    assert longer.keys is None and longer.fields["positions"] == (5, 6)
    assert diff(make_prefix(positions=0), make_prefix(positions=0)).keys[0].cosine == 1.0
