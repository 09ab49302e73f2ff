"""Linear layers with int8 weights stay close to the plain ones, whichever way they compute."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from foreword.engines._int8 import FEW_ROWS, Int8Linear, quantize_weights
from foreword.errors import ConfigError

BOTH_WAYS = [1, 3, FEW_ROWS, FEW_ROWS + 1, 70]


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("bias", [None, random(64, seed=2)], ids=["plain", "bias"])
@pytest.mark.parametrize("rows", BOTH_WAYS)
def test_close_to_the_plain_product(dtype, bias, rows):
    weight_OI, input_1RI = random(64, 192), random(1, rows, 192, seed=1)
    layer = Int8Linear(weight_OI.to(dtype), None if bias is None else bias.to(dtype))
    ours, theirs = layer(input_1RI.to(dtype)), nn.functional.linear(input_1RI, weight_OI, bias)
    assert ours.dtype == dtype and ours.shape == theirs.shape
    assert (ours.float() - theirs).norm() / theirs.norm() < 0.015


@pytest.mark.parametrize("rows", BOTH_WAYS)
def test_both_ways_compute_with_the_same_weights(rows):
    """What the weights read as, exactly, is within half a step of what they were."""
    weight_OI = random(128, 192).bfloat16()
    layer = Int8Linear(weight_OI, None)
    held_OI = layer.weight_OI.double() * layer.scale_O.double()[:, None]
    assert ((held_OI - weight_OI.double()).abs() <= 0.51 * layer.scale_O.double()[:, None]).all()
    input_RI = random(rows, 192, seed=1).bfloat16()
    # Sums of 192 products, of which the result keeps 8 bits (twice, where the scale comes after).
    torch.testing.assert_close(layer(input_RI).double(), input_RI.double() @ held_OI.T, atol=0.02, rtol=2**-7)


@pytest.mark.parametrize("channels", [1, 7, 16, 40, 63, 64, 65, 96, 128])
@pytest.mark.parametrize("rows", [1, 5])
def test_any_sizes(channels, rows):
    """The kernel takes whole blocks only; other sizes must not reach it."""
    for outputs in (1, 9, 64, 100):
        weight_OI, input_RI = random(outputs, channels), random(rows, 2 * channels, seed=1)[:, ::2]
        ours = Int8Linear(weight_OI.bfloat16(), None)(input_RI.bfloat16()).float()
        torch.testing.assert_close(ours, input_RI @ weight_OI.T, atol=0.03 * channels**0.5, rtol=0.03)


def test_channels_of_very_different_sizes_keep_their_precision():
    scale_O1 = torch.logspace(-6, 6, 24)[:, None]
    weight_OI, input_RI = random(24, 40) * scale_O1, random(7, 40, seed=1)
    ours, theirs = Int8Linear(weight_OI, None)(input_RI), input_RI @ weight_OI.T
    assert ((ours - theirs).norm(dim=0) / theirs.norm(dim=0)).max() < 0.04


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_nothing_to_round(dtype):
    bias_O = random(64).to(dtype)
    layer = Int8Linear(torch.zeros(64, 128, dtype=dtype), bias_O)
    assert torch.equal(layer(random(2, 128).to(dtype)), bias_O.expand(2, -1))
    assert layer(torch.zeros(0, 128, dtype=dtype)).shape == (0, 64)
    assert layer(torch.full((1, 128), torch.nan, dtype=dtype)).isnan().all(), "what is broken stays visible"


@pytest.mark.parametrize("rows", BOTH_WAYS)
def test_gradients_reach_the_input(rows):
    layer = Int8Linear(random(64, 128).bfloat16(), None)
    input_RI = random(rows, 128, seed=1).bfloat16().requires_grad_()
    layer(input_RI).float().sum().backward()
    held_OI = layer.weight_OI.float() * layer.scale_O.float()[:, None]
    torch.testing.assert_close(input_RI.grad.float(), held_OI.sum(0).expand(rows, -1), atol=0.1, rtol=0.02)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("family", ["llama", "qwen3", "gpt2", "gpt_neox"])
def test_a_model_keeps_its_predictions(folder_of, reference_of, family, dtype):
    from transformers import AutoModelForCausalLM

    module = AutoModelForCausalLM.from_pretrained(folder_of(family), dtype=dtype).eval().requires_grad_(False)
    head = module.get_output_embeddings()
    head_weight = head.weight
    linear = sum(isinstance(layer, nn.Linear) or type(layer).__name__ == "Conv1D" for layer in module.modules()) - 1
    quantize_weights(module)
    assert module.get_output_embeddings() is head and head.weight is head_weight and head_weight.dtype == dtype
    assert module.dtype == dtype
    assert sum(isinstance(layer, Int8Linear) for layer in module.modules()) == linear > 0
    assert not any(isinstance(layer, nn.Linear) for layer in module.modules() if layer is not head)
    for length in (10, 40):
        ids = torch.arange(3, 3 + length)[None]
        with torch.inference_mode():
            ours, theirs = (model(ids).logits.float().log_softmax(-1) for model in (module, reference_of(family)))
        assert (theirs.exp() * (theirs - ours)).sum(-1).mean() < 0.02, "Kullback-Leibler divergence in nats"


def test_other_devices_are_refused(folder_of):
    from transformers import AutoConfig, AutoModelForCausalLM

    with torch.device("meta"):
        module = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder_of("llama")))
    with pytest.raises(ConfigError, match="CPU"):
        quantize_weights(module)
