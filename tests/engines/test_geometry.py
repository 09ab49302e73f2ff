"""Shapes and rotary frequencies read from a model, and what is refused."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from foreword.engines._geometry import geometry_of, sliding_window_of, window_of
from foreword.engines.transformers import load
from foreword.errors import ModelError
from foreword.prefix.rotary import rotate

SHAPES = {"llama": (2, 2, 8), "qwen3": (2, 2, 16), "gemma3_text": (2, 1, 16), "gpt2": (2, 4, 8), "gpt_neox": (2, 4, 8)}


@pytest.mark.parametrize("family", SHAPES)
def test_shape(engine_of, family):
    geometry = engine_of(family).geometry
    assert (geometry.layers, geometry.kv_heads, geometry.head_dim) == SHAPES[family]


@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma3_text", "gpt_neox"])
def test_the_frequencies_turn_the_models_keys(engine_of, reference_of, family):
    """Keys that the model computes at other positions are the turned ones, in every layer."""
    geometry, module = engine_of(family).geometry, reference_of(family)

    def read(start: int) -> torch.Tensor:
        tokens = torch.tensor([[30, 31, 32, 33]])
        with torch.no_grad():
            cache = module(tokens, position_ids=torch.arange(start, start + 4)[None], use_cache=True).past_key_values
        return torch.stack([layer.keys[0] for layer in cache.layers])

    torch.testing.assert_close(rotate(read(0), geometry, 29), read(29), atol=1e-3, rtol=0)
    assert not torch.allclose(read(0), read(29), atol=0.1)


def test_layers_of_two_kinds_have_a_group_each(engine_of):
    groups = {group.layers: group for group in engine_of("gemma3_text").geometry.rotary}
    assert set(groups) == {(0,), (1,)}
    assert groups[(0,)].inverse_frequencies != groups[(1,)].inverse_frequencies


def test_absolute_positions_have_no_group(engine_of):
    assert engine_of("gpt2").geometry.rotary == ()


def test_sliding_windows(engine_of):
    window = sliding_window_of(engine_of("gemma3_text", sliding_window=8).module.config)
    assert window.size == 8 and window.by_type
    assert sliding_window_of(engine_of("llama").module.config) is None
    assert sliding_window_of(engine_of("qwen3").module.config) is None
    assert window_of(engine_of("gpt2").module.config) == 512


def test_a_model_without_attention_is_refused(tmp_path):
    config = SimpleNamespace(model_type="mamba", num_hidden_layers=2)
    module = SimpleNamespace(config=SimpleNamespace(get_text_config=lambda: config))
    with pytest.raises(ModelError, match="`mamba` is not a decoder-only transformer"):
        geometry_of(module)


def tiny(tmp_path, architecture, **config):
    """A checkpoint of another family with the Llama tokenizer."""
    from transformers import AutoConfig, AutoModelForCausalLM

    import tiny_models

    tokenizer = tiny_models.build_tokenizer("llama")
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(architecture, vocab_size=tiny_models.VOCABULARY, **config))
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    return str(tmp_path)


def test_a_recurrent_model_is_refused_by_name(tmp_path):
    folder = tiny(tmp_path, "mamba", hidden_size=16, num_hidden_layers=2, state_size=4)
    with pytest.raises(ModelError, match="mamba"):
        load(folder, dtype="float32", device="cpu")


SMALL = {
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "initializer_range": 0.2,
    "pad_token_id": 0,
}


@pytest.mark.parametrize(
    ("architecture", "config", "reason"),
    [
        ("bloom", {"hidden_size": 16, "n_layer": 2, "n_head": 2}, "`bloom` has no `max_position_embeddings`"),
        ("granite", {**SMALL, "logits_scaling": 8.0}, "computes its logits in a way that Foreword does not know"),
        # Learned sinks in every softmax, which our attention would leave out.
        ("gpt_oss", {**SMALL, "head_dim": 8, "num_local_experts": 2, "num_experts_per_tok": 1}, "in a way that Foreword does not know"),
        ("falcon", {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}, r"keys have shape \(2, 1, 3, 8\)"),
    ],
)
def test_a_model_whose_numbers_would_change_is_refused(tmp_path, architecture, config, reason):
    folder = tiny(tmp_path, architecture, **config)
    with pytest.raises(ModelError, match=reason):
        load(folder, dtype="float32", device="cpu")


def test_a_model_that_turns_its_keys_otherwise_takes_prefixes_that_stay_in_place(tmp_path, caplog):
    """GLM interleaves the pairs that turn together."""
    engine = load(tiny(tmp_path, "glm", **SMALL, head_dim=8), dtype="float32", device="cpu")
    assert engine.geometry.rotary == () and "cannot be moved" in caplog.text


def test_a_window_on_every_layer(tmp_path):
    """Mistral has one kind of layer only and takes a single mask."""
    folder = tiny(tmp_path, "mistral", **SMALL, sliding_window=8)
    engine = load(folder, dtype="float32", device="cpu")
    from transformers import AutoModelForCausalLM

    from foreword.engine import Row

    ids = list(range(20, 60))
    reference = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    with torch.no_grad():
        wanted = reference(torch.tensor([ids])).logits[0, 29:-1].log_softmax(-1).gather(1, torch.tensor(ids[30:])[:, None])[:, 0]
        ours = engine.target_log_probs([Row(prompt=tuple(ids[20:30]), targets=(tuple(ids[30:]),))], *engine.read(ids[:20]))
    torch.testing.assert_close(ours, wanted, atol=1e-4, rtol=0)
