"""Fitting few keys and values to the attention over many. Axes: M query, T key, N kept key, D head dimension."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from foreword.compiling import matching

T, N, D = 96, 12, 8


def problem(seed: int, queries: int = 400) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Queries with a common direction, as heads have them, what falls beside, keys and values."""
    draw = torch.Generator().manual_seed(seed)
    query_MD = torch.randn(queries, D, generator=draw) + 1.5
    key_TD, value_TD = 0.3 * torch.randn(T, D, generator=draw), torch.randn(T, D, generator=draw)
    return query_MD, torch.randn(queries, generator=draw) + 4, key_TD, value_TD


def output(query_MD: Tensor, beside_M: Tensor, key_ND: Tensor, value_ND: Tensor) -> Tensor:
    """What the prefix adds to the attention's output, in float64."""
    scores = (query_MD @ key_ND.T).double()
    whole = torch.logaddexp(scores.logsumexp(-1), beside_M.double())
    return (scores - whole[:, None]).exp() @ value_ND.double()


def test_attention_is_a_softmax_over_prefix_and_rest():
    query_MD, beside_M, key_TD, value_TD = problem(0)
    weights_MT, share_M = matching.attention(query_MD, beside_M, key_TD)
    scores = torch.cat([query_MD @ key_TD.T, beside_M[:, None]], dim=1).softmax(-1)
    assert torch.allclose(weights_MT * share_M[:, None], scores[:, :-1], atol=1e-6)
    assert torch.allclose(output(query_MD, beside_M, key_TD, value_TD).float(), scores[:, :-1] @ value_TD, atol=1e-5)


def test_all_keys_stay_as_they_are():
    query_MD, beside_M, key_TD, value_TD = problem(1)
    weights_MT, share_M = matching.attention(query_MD, beside_M, key_TD)
    key_ND, value_ND = matching.fit(query_MD, weights_MT, share_M, key_TD, value_TD, torch.arange(T))
    assert torch.allclose(key_ND, key_TD, atol=1e-3) and torch.allclose(value_ND, value_TD, atol=1e-3)


@pytest.mark.parametrize("seed", range(5))
def test_fitted_keys_and_values_come_nearer_for_queries_not_seen(seed: int):
    query_MD, beside_M, key_TD, value_TD = problem(seed, queries=800)
    seen, others = slice(0, 400), slice(400, None)
    weights_MT, share_M = matching.attention(query_MD[seen], beside_M[seen], key_TD)
    kept_N = weights_MT.amax(0).topk(N).indices
    key_ND, value_ND = matching.fit(query_MD[seen], weights_MT, share_M, key_TD, value_TD, kept_N)
    whole = output(query_MD[others], beside_M[others], key_TD, value_TD)
    unfitted = output(query_MD[others], beside_M[others], key_TD[kept_N], value_TD[kept_N])
    fitted = output(query_MD[others], beside_M[others], key_ND, value_ND)
    assert (fitted - whole).square().mean() < 0.9 * (unfitted - whole).square().mean()


def test_kept_keys_take_over_the_mass_of_those_left_out():
    query_MD, beside_M, key_TD, value_TD = problem(2)
    weights_MT, share_M = matching.attention(query_MD, beside_M, key_TD)
    kept_N = weights_MT.amax(0).topk(N).indices
    key_ND, _ = matching.fit(query_MD, weights_MT, share_M, key_TD, value_TD, kept_N)
    mass = [(query_MD @ keys.T).logsumexp(-1) for keys in (key_TD, key_TD[kept_N], key_ND)]
    counted_M = share_M * (1 - share_M)
    before, after = (((mass[0] - other).square() * counted_M).sum() for other in mass[1:])
    assert after < 0.3 * before


def test_one_query_is_enough_for_a_solvable_system():
    query_MD, beside_M, key_TD, value_TD = problem(3, queries=1)
    weights_MT, share_M = matching.attention(query_MD, beside_M, key_TD)
    for tensor in matching.fit(query_MD, weights_MT, share_M, key_TD, value_TD, torch.arange(N)):
        assert torch.isfinite(tensor).all()
