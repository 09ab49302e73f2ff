"""Drawing one token from logits."""

from __future__ import annotations

import pytest
import torch

from foreword.engines._sampling import Sampler
from foreword.types import Sampling

CPU = torch.device("cpu")
LOGITS_V = torch.tensor([2.0, 1.0, 0.0, -1.0, 1.5, -3.0])


def draws(count: int, **fields) -> torch.Tensor:
    sampler = Sampler(Sampling(**{"temperature": 1.0, **fields}), CPU)
    return torch.tensor([sampler.draw(LOGITS_V) for _ in range(count)])


def test_greedy_is_the_largest():
    assert set(draws(3, temperature=0.0).tolist()) == {0}


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_frequencies_are_the_probabilities(temperature):
    shares = draws(4000, temperature=temperature, seed=1).bincount(minlength=6) / 4000
    # Four standard errors of a share of one half over 4,000 draws.
    torch.testing.assert_close(shares, (LOGITS_V / temperature).softmax(-1), atol=0.032, rtol=0)


def test_top_k_keeps_the_largest():
    assert set(draws(500, temperature=5.0, top_k=3).tolist()) == {0, 4, 1}
    assert set(draws(2000, temperature=5.0, top_k=99).tolist()) == set(range(6))


def test_top_p_keeps_the_fewest_that_reach_the_mass():
    probabilities = LOGITS_V.softmax(-1)
    assert probabilities[[0, 4]].sum() < 0.8 < probabilities[[0, 4, 1]].sum()
    assert set(draws(1000, top_p=0.8).tolist()) == {0, 4, 1}
    assert set(draws(50, top_p=1e-6).tolist()) == {0}


def test_both_limits_hold_together():
    assert set(draws(500, temperature=5.0, top_k=4, top_p=0.3).tolist()) <= {0, 4}


def test_one_seed_gives_one_sequence():
    assert torch.equal(draws(50, seed=3), draws(50, seed=3))
    assert not torch.equal(draws(50, seed=3), draws(50, seed=4))
