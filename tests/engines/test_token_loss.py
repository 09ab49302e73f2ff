"""Chunked log-probabilities and their gradient, against log_softmax over everything."""

from __future__ import annotations

import pytest
import torch

from foreword.engines._token_loss import CHUNK, likeliest, log_probs_of, target_log_probs

TOLERANCE = 2e-5


def plain(hidden_TD, head, target_T, softcap):
    logits = head(hidden_TD)
    if softcap is not None:
        logits = softcap * torch.tanh(logits / softcap)
    return logits.log_softmax(-1).gather(1, target_T[:, None])[:, 0]


@pytest.mark.parametrize("tokens", [1, CHUNK, CHUNK + 1, 2 * CHUNK + 90])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("softcap", [None, 3.0])
def test_values_and_gradients(tokens, bias, softcap):
    torch.manual_seed(0)
    head = torch.nn.Linear(12, 50, bias=bias).requires_grad_(False)
    hidden_TD, target_T, weight_T = 3 * torch.randn(tokens, 12), torch.randint(0, 50, (tokens,)), torch.randn(tokens)
    ours, theirs = hidden_TD.clone().requires_grad_(), hidden_TD.clone().requires_grad_()
    mine, reference = target_log_probs(ours, head, target_T, softcap=softcap), plain(theirs, head, target_T, softcap)
    torch.testing.assert_close(mine, reference, atol=TOLERANCE, rtol=1e-5)
    (mine * weight_T).sum().backward()
    (reference * weight_T).sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad, atol=TOLERANCE, rtol=1e-4)


def test_a_trainable_head_gets_no_gradient():
    head = torch.nn.Linear(4, 7)
    hidden = torch.randn(3, 4, requires_grad=True)
    target_log_probs(hidden, head, torch.tensor([0, 6, 3]), softcap=None).sum().backward()
    assert hidden.grad is not None and head.weight.grad is None and head.bias.grad is None


def test_no_targets():
    found = target_log_probs(torch.zeros(0, 4), torch.nn.Linear(4, 7), torch.zeros(0, dtype=torch.long), softcap=None)
    assert found.shape == (0,)


def test_certain_and_hopeless_targets_stay_finite():
    head = torch.nn.Linear(2, 2, bias=False).requires_grad_(False)
    head.weight.copy_(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]))
    hidden = torch.tensor([[300.0, 0.0], [300.0, 0.0]], requires_grad=True)
    found = target_log_probs(hidden, head, torch.tensor([0, 1]), softcap=None)
    assert found.tolist() == [0.0, -600.0]
    found.sum().backward()
    assert torch.isfinite(hidden.grad).all()


@pytest.mark.parametrize("tokens", [1, CHUNK + 1])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("softcap", [None, 3.0])
def test_several_tokens_at_each_position(tokens: int, bias: bool, softcap: float | None):
    torch.manual_seed(0)
    head = torch.nn.Linear(12, 50, bias=bias).requires_grad_(False)
    hidden_TD, ids_TC, weight_TC = 3 * torch.randn(tokens, 12), torch.randint(0, 50, (tokens, 5)), torch.randn(tokens, 5)
    ours, theirs = hidden_TD.clone().requires_grad_(), hidden_TD.clone().requires_grad_()
    mine = log_probs_of(ours, head, ids_TC, softcap=softcap)
    reference = torch.stack([plain(theirs, head, ids_T, softcap) for ids_T in ids_TC.T], dim=1)
    torch.testing.assert_close(mine, reference, atol=TOLERANCE, rtol=1e-5)
    (mine * weight_TC).sum().backward()
    (reference * weight_TC).sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad, atol=2 * TOLERANCE, rtol=1e-4)


@pytest.mark.parametrize("softcap", [None, 3.0])
def test_the_likeliest_tokens(softcap: float | None):
    torch.manual_seed(0)
    head = torch.nn.Linear(12, 50).requires_grad_(False)
    hidden_TD = 3 * torch.randn(CHUNK + 1, 12)
    ids_TC, log_p_TC = likeliest(hidden_TD, head, 50, softcap=softcap)
    assert (ids_TC.sort(-1).values == torch.arange(50)).all()
    assert (log_p_TC.diff(dim=-1) <= 0).all()
    torch.testing.assert_close(log_p_TC.exp().sum(-1), torch.ones(CHUNK + 1))
    torch.testing.assert_close(log_p_TC, log_probs_of(hidden_TD, head, ids_TC, softcap=softcap), atol=TOLERANCE, rtol=1e-5)
    few = likeliest(hidden_TD, head, 3, softcap=softcap)
    assert torch.equal(few[0], ids_TC[:, :3]) and torch.equal(few[1], log_p_TC[:, :3])


def test_more_candidates_than_tokens():
    assert likeliest(torch.zeros(2, 4), torch.nn.Linear(4, 7), 64, softcap=None)[0].shape == (2, 7)
