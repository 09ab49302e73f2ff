"""`prefix:NAME` and `prefix:FILE`: another prefix goes on."""

from __future__ import annotations

import pytest
import torch

from foreword.api import Model, compile_text
from foreword.errors import PrefixMismatch, StoreError, TuningError
from foreword.prefix.operations import quantize, shift
from foreword.prefix.store import PrefixStore
from foreword.tuning.initialisations.prefix import start


@pytest.fixture
def parent(engine):
    return compile_text(Model(engine), "Aromi serves Chinese food in the city centre.", name="house")


def test_a_file_goes_on_where_it_was(parent, context_for, tmp_path):
    parent.save(tmp_path / "house.safetensors")
    made = start(context_for(argument=str(tmp_path / "house.safetensors")))
    assert torch.equal(made.key_LHND, parent.key_LHND) and torch.equal(made.value_LHND, parent.value_LHND)
    assert made.parents == (parent.header.digest,) and made.prompt_format == parent.header.prompt_format


def test_a_name_is_found_in_the_store(parent, context_for):
    PrefixStore().publish(parent)
    assert torch.equal(start(context_for(argument="house")).key_LHND, parent.key_LHND)
    with pytest.raises(StoreError, match="absent"):
        start(context_for(argument="absent"))


def test_another_store_is_looked_into_where_it_is_given(parent, context_for, tmp_path):
    store = PrefixStore(tmp_path / "elsewhere")
    store.publish(parent)
    assert torch.equal(start(context_for(argument="house", store=store)).key_LHND, parent.key_LHND)
    with pytest.raises(StoreError, match="house"):
        start(context_for(argument="house"))


def test_it_is_cut_to_what_is_wanted(parent, context_for, tmp_path):
    parent.save(tmp_path / "house.safetensors")
    made = start(context_for(argument=str(tmp_path / "house.safetensors"), positions=5))
    assert made.positions == 5 and made.parents == (parent.header.digest,)


def test_a_shifted_prefix_is_turned_back(parent, context_for, tmp_path):
    shift(parent, 17).save(tmp_path / "shifted.safetensors")
    made = start(context_for(argument=str(tmp_path / "shifted.safetensors")))
    torch.testing.assert_close(made.key_LHND, parent.key_LHND, rtol=1e-4, atol=1e-4)


def test_an_int8_prefix_is_widened(parent, context_for, tmp_path):
    small = quantize(parent)
    small.save(tmp_path / "small.safetensors")
    assert torch.equal(start(context_for(argument=str(tmp_path / "small.safetensors"))).key_LHND, small.keys())


def test_one_for_another_model_names_what_differs(engine_of, context_for, tmp_path):
    compile_text(Model(engine_of("qwen3")), "hello", name="other").save(tmp_path / "other.safetensors")
    with pytest.raises(PrefixMismatch, match="architecture: prefix has 'Qwen3ForCausalLM', model has 'LlamaForCausalLM'") as caught:
        start(context_for(argument=str(tmp_path / "other.safetensors")))
    assert {"architecture", "weights", "config"} <= set(caught.value.differences)


def test_a_name_must_be_given(context_for):
    with pytest.raises(TuningError, match="needs the name of a prefix"):
        start(context_for())
