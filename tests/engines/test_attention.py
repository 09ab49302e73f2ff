"""Grouped attention, forward and backward, against torch's own."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from foreword.engines._attention import LARGEST_SCORES, attend
from foreword.engines._rows import additive

MODULE = torch.nn.Identity()
# Sums of up to a hundred float32 products in another order.
TOLERANCE = 2e-5


def tensors(B, H, G, T, S, D, seed=0, dtype=torch.float32):
    draw = torch.Generator().manual_seed(seed)
    query, key, value = (torch.randn(shape, generator=draw).to(dtype) for shape in ((B, H, T, D), (B, G, S, D), (B, G, S, D)))
    visible = torch.rand(B, T, S, generator=draw) < 0.6
    visible[:, :, 0] = True
    return query, key, value, visible


def run(attention, query, key, value, grad_BTHD):
    leaves = [tensor.clone().requires_grad_() for tensor in (query, key, value)]
    out = attention(*leaves)
    out.backward(grad_BTHD)
    return out.detach(), *(leaf.grad for leaf in leaves)


@pytest.mark.parametrize(("H", "G"), [(6, 2), (4, 4), (8, 1)])
@pytest.mark.parametrize("scaling", [None, 0.7])
def test_forward_and_backward(H, G, scaling):
    query, key, value, visible = tensors(3, H, G, 7, 19, 8)
    grad_BTHD = torch.randn(3, 7, H, 8, generator=torch.Generator().manual_seed(9))
    mask = additive(visible, torch.float32)[:, None]

    def ours(query, key, value):
        return attend(MODULE, query, key, value, mask, scaling)[0]

    def theirs(query, key, value):
        scale = 8**-0.5 if scaling is None else scaling
        return F.scaled_dot_product_attention(query, key, value, visible[:, None], scale=scale, enable_gqa=True).transpose(1, 2)

    for mine, reference in zip(run(ours, query, key, value, grad_BTHD), run(theirs, query, key, value, grad_BTHD), strict=True):
        torch.testing.assert_close(mine, reference, atol=TOLERANCE, rtol=1e-4)


def test_hidden_keys_get_neither_weight_nor_gradient():
    query, key, value, visible = tensors(2, 4, 2, 5, 9, 8)
    visible[:, :, 6:] = False
    mask = additive(visible, torch.float32)[:, None]
    value[:, :, 6:] = 1e6
    out, _, grad_key, grad_value = run(lambda *leaves: attend(MODULE, *leaves, mask)[0], query, key, value, torch.ones(2, 5, 4, 8))
    assert out.abs().max() < 100
    assert grad_key[:, :, 6:].abs().max() == 0 and grad_value[:, :, 6:].abs().max() == 0
    assert grad_key[:, :, :6].abs().max() > 0


def test_only_what_asks_gets_a_gradient():
    query, key, value, visible = tensors(1, 4, 2, 3, 5, 8)
    mask = additive(visible, torch.float32)[:, None]
    key.requires_grad_()
    attend(MODULE, query, key, value, mask)[0].sum().backward()
    assert key.grad is not None and query.grad is None and value.grad is None


def test_without_a_mask_every_key_is_seen():
    query, key, value, _ = tensors(2, 4, 2, 1, 9, 8)
    everything = torch.zeros(2, 1, 1, 9)
    torch.testing.assert_close(attend(MODULE, query, key, value, None)[0], attend(MODULE, query, key, value, everything)[0])


def test_the_fused_path_of_long_rows_gives_the_same():
    query, key, value, _ = tensors(1, 4, 2, 2060, 2061, 8)
    assert query.shape[2] * key.shape[2] > LARGEST_SCORES
    visible = torch.ones(1, 2060, 2061, dtype=torch.bool).tril(1)
    visible[:, :, 40:90] &= torch.eye(2060, 2061, dtype=torch.bool)[:, 40:90]
    mask = additive(visible, torch.float32)[:, None]
    with torch.no_grad():
        fused = attend(MODULE, query, key, value, mask)[0]
    kept = attend(MODULE, query.requires_grad_(), key, value, mask)[0]
    assert fused.grad_fn is None and "GroupedAttention" in type(kept.grad_fn.next_functions[0][0].next_functions[0][0]).__name__
    torch.testing.assert_close(fused, kept.detach(), atol=TOLERANCE, rtol=1e-4)


def test_bfloat16_stays_near_float32():
    query, key, value, visible = tensors(2, 4, 2, 6, 11, 8)
    wide = attend(MODULE, query, key, value, additive(visible, torch.float32)[:, None])[0]
    narrow = attend(MODULE, query.bfloat16(), key.bfloat16(), value.bfloat16(), additive(visible, torch.bfloat16)[:, None])[0]
    assert narrow.dtype == torch.bfloat16
    # bfloat16 keeps 8 bits: each of a dozen terms of order 1 is off by up to 1/256.
    torch.testing.assert_close(narrow.float(), wide, atol=0.05, rtol=0)
