"""Turning keys, against the rotary encodings of transformers."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from foreword.errors import PrefixError
from foreword.prefix.header import Geometry, RotaryGroup
from foreword.prefix.rotary import rotate

# float32 has 24 bits; keys here are of order 1 and transformers rounds its angles to float32 (up to 1,000 radians, so 6e-5 each).
MODEL_TOLERANCE = 2e-4
ROUNDING = 1e-5


def frequencies(rotary_dim: int, base: float = 10_000.0) -> tuple[float, ...]:
    return tuple(base ** (-2 * i / rotary_dim) for i in range(rotary_dim // 2))


@pytest.fixture(scope="module")
def keys_LHND() -> torch.Tensor:
    return torch.randn(2, 3, 6, 8, generator=torch.Generator().manual_seed(0))


def test_llama_rotary_at_another_position(keys_LHND):
    from transformers import LlamaConfig
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding, apply_rotary_pos_emb

    rotary = LlamaRotaryEmbedding(LlamaConfig(hidden_size=32, num_attention_heads=4, head_dim=8))
    group = RotaryGroup(layers=(0, 1), rotary_dim=8, inverse_frequencies=tuple(rotary.inv_freq.tolist()))
    geometry = Geometry(layers=2, kv_heads=3, head_dim=8, rotary=(group,))

    def encoded(start: int) -> torch.Tensor:
        cos, sin = rotary(keys_LHND, torch.arange(start, start + 6)[None])
        return apply_rotary_pos_emb(keys_LHND, keys_LHND, cos, sin)[1]

    for start, by in [(0, 1), (0, 7), (3, 100), (0, 900), (50, -50), (1000, -1)]:
        moved = rotate(encoded(start), geometry, by)
        torch.testing.assert_close(moved, encoded(start + by), atol=MODEL_TOLERANCE, rtol=0)
        assert not torch.allclose(encoded(start), encoded(start + by), atol=0.01)


@pytest.mark.parametrize("family", ["llama", "gemma3", "gpt_neox"])
def test_keys_of_a_model_read_at_another_position(family):
    """Keys of every layer depend on relative positions only, so reading the text elsewhere turns them and does nothing else."""
    model, geometry = tiny_model(family)
    tokens = torch.tensor([[3, 14, 15, 9, 2, 6]])

    def read(start: int) -> torch.Tensor:
        positions = torch.arange(start, start + 6)[None]
        with torch.no_grad():
            cache = model(tokens, position_ids=positions, use_cache=True).past_key_values
        return torch.stack([layer.keys[0] for layer in cache.layers])

    moved = rotate(read(0), geometry, 37)
    torch.testing.assert_close(moved, read(37), atol=MODEL_TOLERANCE, rtol=0)
    assert not torch.allclose(read(0), read(37), atol=0.01)


def tiny_model(family: str):
    import transformers

    torch.manual_seed(0)
    shared = {"vocab_size": 32, "hidden_size": 32, "intermediate_size": 32, "num_attention_heads": 4, "num_hidden_layers": 3}
    if family == "llama":
        model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**shared, num_key_value_heads=2))
        groups, heads = [((0, 1, 2), frequencies(8))], 2
    elif family == "gpt_neox":
        config = transformers.GPTNeoXConfig(
            **shared, rope_parameters={"rope_type": "default", "rope_theta": 10_000.0, "partial_rotary_factor": 0.5}
        )
        model = transformers.GPTNeoXForCausalLM(config)
        groups, heads = [((0, 1, 2), frequencies(4))], 4
    else:
        kinds = ["sliding_attention", "full_attention", "sliding_attention"]
        config = transformers.Gemma3TextConfig(**shared, num_key_value_heads=2, head_dim=8, layer_types=kinds, sliding_window=16)
        model = transformers.Gemma3ForCausalLM(config)
        groups, heads = [((0, 2), frequencies(8)), ((1,), frequencies(8, 1_000_000.0))], 2
    rotary = tuple(RotaryGroup(layers=layers, rotary_dim=2 * len(inverse), inverse_frequencies=inverse) for layers, inverse in groups)
    return model.eval(), Geometry(layers=3, kv_heads=heads, head_dim=8, rotary=rotary)


@settings(max_examples=50, deadline=None)
@given(first=st.integers(-2000, 2000), second=st.integers(-2000, 2000))
def test_turns_add_up(keys_LHND, geometry, first, second):
    twice = rotate(rotate(keys_LHND, geometry, first), geometry, second)
    torch.testing.assert_close(twice, rotate(keys_LHND, geometry, first + second), atol=ROUNDING, rtol=0)
    back = rotate(rotate(keys_LHND, geometry, first), geometry, -first)
    torch.testing.assert_close(back, keys_LHND, atol=ROUNDING, rtol=0)


def test_partial_rotary_and_layers_without_any(keys_LHND):
    group = RotaryGroup(layers=(1,), rotary_dim=4, inverse_frequencies=frequencies(4))
    moved = rotate(keys_LHND, Geometry(layers=2, kv_heads=3, head_dim=8, rotary=(group,)), 3)
    assert torch.equal(moved[0], keys_LHND[0])
    assert torch.equal(moved[1, ..., 4:], keys_LHND[1, ..., 4:])
    assert (moved[1, ..., :4] - keys_LHND[1, ..., :4]).abs().amax() > 0.1
    lengths = [tensor[1, ..., 0] ** 2 + tensor[1, ..., 2] ** 2 for tensor in (moved, keys_LHND)]
    torch.testing.assert_close(*lengths, atol=ROUNDING, rtol=0)


def test_input_dtype_and_memory_are_kept(keys_LHND, geometry):
    narrow = keys_LHND.bfloat16()
    before = narrow.clone()
    moved = rotate(narrow, geometry, 5)
    assert moved.dtype == torch.bfloat16 and torch.equal(narrow, before)
    assert torch.equal(moved, rotate(narrow.float(), geometry, 5).bfloat16())


def test_gradients_are_turned_back(keys_LHND, geometry):
    keys = keys_LHND.clone().requires_grad_()
    rotate(keys, geometry, 4).backward(keys_LHND)
    torch.testing.assert_close(keys.grad, rotate(keys_LHND, geometry, -4), atol=ROUNDING, rtol=0)


def test_what_cannot_turn(keys_LHND, geometry):
    fixed = Geometry(layers=2, kv_heads=3, head_dim=8, rotary=())
    assert rotate(keys_LHND, fixed, 0) is keys_LHND
    with pytest.raises(PrefixError, match="absolute position"):
        rotate(keys_LHND, fixed, 1)
    with pytest.raises(PrefixError, match="dequantise"):
        rotate(keys_LHND.to(torch.int8), geometry, 1)
    with pytest.raises(PrefixError, match="shape"):
        rotate(keys_LHND[:1], geometry, 1)


def test_an_offset_for_each_layer_head_and_position(keys_LHND, geometry):
    by_LHN = torch.randint(-300, 300, keys_LHND.shape[:3], generator=torch.Generator().manual_seed(1))
    moved = rotate(keys_LHND, geometry, by_LHN)
    for layer, head, position in torch.cartesian_prod(*(torch.arange(size) for size in by_LHN.shape)).tolist():
        alone = rotate(keys_LHND, geometry, int(by_LHN[layer, head, position]))
        torch.testing.assert_close(moved[layer, head, position], alone[layer, head, position], atol=ROUNDING, rtol=0)


@pytest.mark.parametrize("shape", [(), (6,), (3, 1), (2, 1, 1), (2, 3, 1), (1, 3, 6), (2, 3, 6)])
def test_offsets_broadcast(keys_LHND, geometry, shape):
    by = torch.randint(1, 90, shape, generator=torch.Generator().manual_seed(2), dtype=torch.int32)
    assert torch.equal(rotate(keys_LHND, geometry, by), rotate(keys_LHND, geometry, by.long().expand(2, 3, 6).clone()))
    assert by.numel() > 1 or torch.equal(rotate(keys_LHND, geometry, by), rotate(keys_LHND, geometry, int(by)))


def test_offsets_of_layers_in_several_groups():
    model, geometry = tiny_model("gemma3")
    tokens = torch.tensor([[3, 14, 15, 9, 2, 6]])

    def read(start: int) -> torch.Tensor:
        with torch.no_grad():
            cache = model(tokens, position_ids=torch.arange(start, start + 6)[None], use_cache=True).past_key_values
        return torch.stack([layer.keys[0] for layer in cache.layers])

    moved = rotate(read(0), geometry, torch.tensor([5, 37, 11])[:, None, None])
    for layer, by in enumerate((5, 37, 11)):
        torch.testing.assert_close(moved[layer], read(by)[layer], atol=MODEL_TOLERANCE, rtol=0)


@pytest.mark.parametrize("family", ["llama", "gemma3", "gpt_neox"])
def test_gaps_are_closed(family):
    """Keys kept from scattered positions, other ones in every layer and head, stand where a text of that length has them."""
    model, geometry = tiny_model(family)
    with torch.no_grad():
        cache = model(torch.tensor([[3, 14, 15, 9, 2, 6]]), use_cache=True).past_key_values
    key_LHND = torch.stack([layer.keys[0] for layer in cache.layers])
    kept_LHN = torch.rand(key_LHND.shape[:3], generator=torch.Generator().manual_seed(3)).topk(3).indices.sort().values
    chosen = key_LHND.gather(2, kept_LHN[..., None].expand(-1, -1, -1, key_LHND.shape[3]))
    closed = rotate(chosen, geometry, torch.arange(3) - kept_LHN)
    assert (kept_LHN != torch.arange(3)).any()
    # Back at position 0 each, the chosen and the closed keys are the same ones.
    torch.testing.assert_close(rotate(closed, geometry, -torch.arange(3)), rotate(chosen, geometry, -kept_LHN), atol=1e-5, rtol=0)


def test_offsets_of_zero_change_nothing(keys_LHND, geometry):
    fixed = Geometry(layers=2, kv_heads=3, head_dim=8, rotary=())
    assert rotate(keys_LHND, geometry, torch.zeros(6, dtype=torch.long)) is keys_LHND
    assert rotate(keys_LHND, fixed, torch.zeros(2, 3, 6, dtype=torch.long)) is keys_LHND
    assert rotate(keys_LHND[:, :, :0], geometry, torch.zeros(0, dtype=torch.long)).shape == (2, 3, 0, 8)
    with pytest.raises(PrefixError, match="move by 4"):
        rotate(keys_LHND, fixed, torch.tensor([0, 0, 0, 0, 0, -4]))


def test_gradients_are_turned_back_by_each_offset(keys_LHND, geometry):
    by = torch.tensor([3, 0, -7, 20, 1, -1])
    keys = keys_LHND.clone().requires_grad_()
    rotate(keys, geometry, by).backward(keys_LHND)
    torch.testing.assert_close(keys.grad, rotate(keys_LHND, geometry, -by), atol=ROUNDING, rtol=0)


@pytest.mark.parametrize(
    ("by", "reason"),
    [
        (torch.ones(6), "whole number"),
        (torch.ones(6, dtype=torch.bool), "whole number"),
        (torch.ones(5, dtype=torch.long), r"broadcast to \(2, 3, 6\).*got shape \(5,\)"),
        (torch.ones(3, dtype=torch.long), "broadcast"),
        (torch.ones(1, 2, 3, 6, dtype=torch.long), "broadcast"),
    ],
)
def test_offsets_that_do_not_fit(keys_LHND, geometry, by, reason):
    with pytest.raises(PrefixError, match=reason):
        rotate(keys_LHND, geometry, by)
