"""A prefix in memory."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime

import pytest
import torch

from foreword.errors import PrefixError, PrefixMismatch
from foreword.prefix.artifact import Prefix


def test_make_fills_in_what_follows_from_the_tensors(make_prefix):
    before = datetime.now(UTC)
    prefix = make_prefix(positions=5, dtype="bfloat16", licence="CC0-1.0")
    assert (prefix.positions, prefix.header.dtype, prefix.header.sink, prefix.header.licence) == (5, "bfloat16", 1, "CC0-1.0")
    assert before <= prefix.header.created <= datetime.now(UTC)
    assert prefix.parameters == 2 * 2 * 3 * 5 * 8
    assert prefix.nbytes == 2 * prefix.parameters
    assert make_prefix(dtype="int8").nbytes == 2 * 2 * 3 * 5 * 8 + 2 * 4 * 2 * 3 * 5


def test_zero_positions_are_a_prefix(make_prefix):
    prefix = make_prefix(positions=0)
    assert (prefix.positions, prefix.parameters, prefix.nbytes, prefix.header.sink) == (0, 0, 0, 0)
    assert prefix.keys().shape == (2, 3, 0, 8)


def test_digest_depends_on_every_number_and_nothing_else(make_prefix):
    first, again = make_prefix(seed=1), make_prefix(seed=1, name="other")
    assert first.header.digest == again.header.digest
    changed = first.key_LHND.clone()
    changed[1, 2, 4, 7] = torch.nextafter(changed[1, 2, 4, 7], torch.tensor(9.0))
    swapped = make_prefix(key_LHND=first.value_LHND, value_LHND=first.key_LHND)
    digests = {first.header.digest, make_prefix(seed=1, key_LHND=changed).header.digest, swapped.header.digest}
    assert len(digests) == 3


def test_tensors_are_copied_and_detached(make_prefix):
    key_LHND = torch.randn(2, 3, 5, 8, requires_grad=True)
    prefix = make_prefix(key_LHND=key_LHND)
    with torch.no_grad():
        key_LHND += 1
    assert not prefix.key_LHND.requires_grad
    assert not torch.equal(prefix.key_LHND, key_LHND)


def test_a_transposed_tensor_gives_the_same_prefix(make_prefix):
    plain = make_prefix()
    strided = plain.key_LHND.transpose(1, 2).contiguous().transpose(1, 2)
    assert make_prefix(key_LHND=strided).header.digest == plain.header.digest


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"key_LHND": torch.zeros(3, 5, 8)}, "4 axes"),
        ({"key_LHND": torch.zeros(2, 3, 5, 8, dtype=torch.float64)}, "float64"),
        ({"key_LHND": torch.zeros(2, 3, 5, 6)}, r"\(2, 3, 5, 8\)"),
        ({"value_LHND": torch.zeros(2, 3, 4, 8)}, "value_LHND"),
        ({"value_LHND": torch.zeros(2, 3, 5, 8, dtype=torch.float16)}, "float16"),
        ({"value_LHND": torch.full((2, 3, 5, 8), float("nan"))}, "NaN"),
        ({"key_LHND": torch.full((2, 3, 5, 8), float("-inf"))}, "infinite"),
        ({"key_scale_LHN": torch.ones(2, 3, 5)}, "Scales belong to int8"),
        ({"dtype": "int8", "key_scale_LHN": None}, "Scales belong to int8"),
        ({"dtype": "int8", "key_scale_LHN": torch.ones(2, 3, 5) * -1}, "negative"),
        ({"dtype": "int8", "key_scale_LHN": torch.ones(3, 2, 5)}, "key_scale_LHN"),
        ({"name": "No Name"}, "name"),
        ({"colour": "red"}, "colour"),
        ({"sink": -1}, "sink"),
    ],
)
def test_make_refuses(make_prefix, changes, words):
    with pytest.raises(PrefixError, match=words):
        make_prefix(**changes)


def test_keys_and_values_are_floating_point(make_prefix):
    half = make_prefix(dtype="bfloat16")
    assert half.keys().dtype == torch.bfloat16
    assert half.values(torch.float32, "cpu").dtype == torch.float32
    small = make_prefix(dtype="int8")
    expected = small.key_LHND.float() * small.key_scale_LHN[..., None]
    assert torch.equal(small.keys(), expected)
    assert torch.equal(small.values(torch.float16).float(), (small.value_LHND * small.value_scale_LHN[..., None]).half().float())


def test_rename_keeps_everything_else(make_prefix):
    prefix = make_prefix()
    renamed = prefix.rename("orders")
    assert renamed.name == "orders" and renamed.key_LHND is prefix.key_LHND
    assert set(prefix.header.differences(renamed.header)) == {"name"}
    with pytest.raises(PrefixError, match="name"):
        prefix.rename("a/b")


def test_check_names_each_differing_field(make_prefix, fingerprint):
    prefix = make_prefix()
    prefix.check(fingerprint)
    with pytest.raises(PrefixMismatch, match="tokenizer") as caught:
        prefix.check(fingerprint.model_copy(update={"tokenizer": "e" * 64, "architecture": "GPT2LMHeadModel"}))
    assert caught.value.differences == {
        "architecture": ("LlamaForCausalLM", "GPT2LMHeadModel"),
        "tokenizer": ("2" * 64, "e" * 64),
    }


def test_it_is_frozen(make_prefix):
    with pytest.raises(dataclasses.FrozenInstanceError):
        make_prefix().key_LHND = torch.zeros(1)
    assert not hasattr(make_prefix(), "__dict__") and isinstance(make_prefix(), Prefix)
