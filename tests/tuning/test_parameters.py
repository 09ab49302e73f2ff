"""What the optimiser moves, and what it stands for."""

from __future__ import annotations

import pytest
import torch

from foreword.tuning.parameters import Reparameterised, ScaledOffsets

SHAPE = (2, 3, 5, 4)


@pytest.fixture
def start():
    draw = torch.Generator().manual_seed(0)
    key_LHND, value_LHND = (torch.randn(SHAPE, generator=draw) for _ in range(2))
    key_LHND[1] *= 100
    value_LHND[0] = 0
    return key_LHND, value_LHND


def made(kind: str, start, seed: int = 0):
    return ScaledOffsets(*start) if kind == "offsets" else Reparameterised(*start, hidden=16, seed=seed)


@pytest.mark.parametrize("kind", ["offsets", "mlp"])
def test_it_begins_at_the_start_itself(kind, start):
    for tensor, wanted in zip(made(kind, start).keys_values(), start, strict=True):
        assert torch.equal(tensor, wanted)


@pytest.mark.parametrize("kind", ["offsets", "mlp"])
def test_a_half_precision_start_is_trained_in_single(kind, start):
    half = [tensor.bfloat16() for tensor in start]
    assert {tensor.dtype for tensor in (*made(kind, half).keys_values(), *made(kind, half).tensors().values())} == {torch.float32}


@pytest.mark.parametrize("kind", ["offsets", "mlp"])
def test_it_can_reach_other_keys_and_values(kind, start):
    parameters = made(kind, start)
    wanted = [tensor + 0.3 * (tensor.std() + 0.1) for tensor in start]
    optimiser = torch.optim.Adam(parameters.tensors().values(), lr=0.02)

    def distance() -> torch.Tensor:
        return sum(((a - b) / (b.std() + 0.1)).pow(2).mean() for a, b in zip(parameters.keys_values(), wanted, strict=True))

    before = float(distance().detach())
    for _ in range(150):
        optimiser.zero_grad()
        distance().backward()
        optimiser.step()
    assert float(distance().detach()) < 0.2 * before
    assert all(tensor.grad is not None for tensor in parameters.tensors().values())


def test_a_step_is_relative_to_each_layers_size(start):
    parameters = ScaledOffsets(*start)
    with torch.no_grad():
        parameters.key_offset += 0.1
        parameters.value_offset += 0.1
    key_LHND, value_LHND = (tensor.detach() for tensor in parameters.keys_values())
    for layer in range(2):
        moved = (key_LHND[layer] - start[0][layer]).mean()
        assert float(moved) == pytest.approx(0.1 * float(start[0][layer].pow(2).mean().sqrt()), rel=1e-3)
    assert torch.allclose(value_LHND[0], torch.full(SHAPE[1:], 0.1))  # all zeros: in units of one


def test_the_networks_start_follows_from_the_seed(start):
    one, same, other = (made("mlp", start, seed).tensors()["embedding"] for seed in (1, 1, 2))
    assert torch.equal(one, same) and not torch.equal(one, other)


def test_making_one_leaves_the_global_generator_alone(start):
    torch.manual_seed(5)
    wanted = torch.rand(3)
    torch.manual_seed(5)
    made("mlp", start)
    assert torch.equal(torch.rand(3), wanted)
