"""Whether a prefix fits vLLM's model."""

from __future__ import annotations

from typing import Any

import pytest

from foreword.errors import PrefixMismatch, WindowError
from foreword.prefix.header import Fingerprint, Geometry, RotaryGroup
from foreword.vllm_plugin.model_facts import ModelFacts


def facts(config: Any, fingerprint: Fingerprint | None = None) -> ModelFacts:
    return ModelFacts.read(config, fingerprint)


def test_a_prefix_of_the_model_fits(make_prefix, model_config):
    prefix = make_prefix()
    facts(model_config()).check(prefix.header)
    facts(model_config(), prefix.header.fingerprint).check(prefix.header)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"layers": 3}, "layers"),
        ({"kv_heads": 2}, "kv_heads"),
        ({"head_dim": 16}, "head_dim"),
        ({"architectures": ["Qwen3ForCausalLM"]}, "architecture"),
        ({"rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0}}, "rotary encoding of layer 0"),
        ({"rope_parameters": {"rope_type": "linear", "rope_theta": 100.0, "factor": 4.0}}, "rotary encoding of layer 0"),
        ({"rope_parameters": {"rope_type": "default", "rope_theta": 100.0, "partial_rotary_factor": 0.5}}, "rotary encoding of layer 0"),
    ],
)
def test_each_difference_is_named(make_prefix, model_config, changes, field):
    with pytest.raises(PrefixMismatch) as raised:
        facts(model_config(**changes)).check(make_prefix().header)
    assert field in raised.value.differences


def test_other_weights_are_seen_by_fingerprint_alone(make_prefix, model_config):
    prefix = make_prefix()
    retrained = prefix.header.fingerprint.model_copy(update={"weights": "f" * 64})
    facts(model_config()).check(prefix.header)
    with pytest.raises(PrefixMismatch) as raised:
        facts(model_config(), retrained).check(prefix.header)
    assert set(raised.value.differences) == {"weights"}


def test_layers_may_turn_each_in_their_own_way(make_prefix, model_config):
    def group(layer: int, theta: float) -> RotaryGroup:
        return RotaryGroup(layers=(layer,), rotary_dim=8, inverse_frequencies=tuple(theta ** (-index / 8) for index in range(0, 8, 2)))

    parameters = {
        "sliding_attention": {"rope_type": "default", "rope_theta": 100.0},
        "full_attention": {"rope_type": "default", "rope_theta": 900.0},
    }
    config = model_config(rope_parameters=parameters, layer_types=["sliding_attention", "full_attention"])
    right = Geometry(layers=2, kv_heads=4, head_dim=8, rotary=(group(0, 100.0), group(1, 900.0)))
    facts(config).check(make_prefix(geometry=right).header)
    wrong = right.model_copy(update={"rotary": (group(0, 100.0), group(1, 100.0))})
    with pytest.raises(PrefixMismatch) as raised:
        facts(config).check(make_prefix(geometry=wrong).header)
    assert set(raised.value.differences) == {"rotary encoding of layer 1"}


@pytest.mark.parametrize("parameters", [None, {"rope_type": "yarn", "rope_theta": 5.0, "factor": 2.0}])
def test_an_encoding_that_is_not_computed_here_is_left_to_the_fingerprint(make_prefix, model_config, parameters):
    facts(model_config(rope_parameters=parameters)).check(make_prefix().header)


def test_prefix_and_prompt_leave_room_for_an_answer(make_prefix, model_config):
    known, header = facts(model_config(max_model_len=20)), make_prefix(positions=5).header
    known.check_room(header, 14)
    with pytest.raises(WindowError, match=r"5 positions and the prompt 15 tokens.*maximum context length is 20"):
        known.check_room(header, 15)
