"""Packed linear layers against torch's own."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from foreword.engines._packed import pack_linear_layers

TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 0.02}


def layers(dtype, bias=True):
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Linear(24, 40, bias=bias), nn.Tanh(), nn.Linear(40, 7, bias=bias)).to(dtype).requires_grad_(False)
    packed = copy.deepcopy(plain)
    pack_linear_layers(packed)
    assert type(packed[0].forward) is not type(plain[0].forward)
    return plain, packed


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(1, 24), (3, 5, 24), (1, 700, 24), (0, 24)])
def test_values_and_gradients(dtype, bias, shape):
    plain, packed = layers(dtype, bias)
    given = torch.randn(shape).to(dtype)
    results = []
    for module in (plain, packed):
        leaf = given.clone().requires_grad_()
        out = module(leaf)
        out.float().pow(2).sum().backward()
        results.append((out.detach(), leaf.grad))
    for mine, theirs in zip(results[1], results[0], strict=True):
        torch.testing.assert_close(mine, theirs, atol=TOLERANCE[dtype], rtol=TOLERANCE[dtype])


def test_a_layout_made_in_inference_mode_serves_training():
    plain, packed = layers(torch.float32)
    given = torch.randn(4, 24)
    with torch.inference_mode():
        first = packed(given)
    leaf = given.clone().requires_grad_()
    packed(leaf).sum().backward()
    torch.testing.assert_close(first, plain(given))
    assert leaf.grad is not None


def test_no_weight_ever_gets_a_gradient_unless_it_is_trained():
    _, packed = layers(torch.float32)
    packed(torch.randn(2, 24, requires_grad=True)).sum().backward()
    assert all(parameter.grad is None for parameter in packed.parameters())
    packed.requires_grad_(True)
    packed(torch.randn(2, 24)).sum().backward()
    assert all(parameter.grad is not None for parameter in packed.parameters())


def test_weights_that_were_trained_are_not_answered_from_an_old_layout():
    _, packed = layers(torch.float32)
    given = torch.randn(2, 24)
    before = packed(given)
    packed.requires_grad_(True)
    with torch.no_grad():
        packed[0].weight += 1
    after = packed(given)
    assert not torch.allclose(before, after)
    packed.requires_grad_(False)
    torch.testing.assert_close(packed(given), after)


def test_strided_input():
    plain, packed = layers(torch.float32)
    given = torch.randn(24, 6).t()
    torch.testing.assert_close(packed(given), plain(given))
