"""Which positions are kept."""

from __future__ import annotations

import torch

from foreword.compiling import selection
from foreword.compiling.selection import OBSERVED
from foreword.engine import Asked


def test_the_first_position_is_kept_whatever_its_score():
    assert selection.kept(torch.tensor([-5.0, 1.0, 3.0, 2.0]), 3).tolist() == [0, 2, 3]


def test_scores_stay_as_they_are():
    score_T = torch.tensor([1.0, 2.0])
    selection.kept(score_T, 1)
    assert score_T.tolist() == [1.0, 2.0]


def test_more_than_there_are():
    assert selection.kept(torch.tensor([1.0, 2.0]), 9).tolist() == [0, 1]


def test_a_key_that_one_query_wants_counts_by_the_prefixs_share():
    weights_MT = torch.full((100, 3), 0.1)
    weights_MT[0, 1] = 0.9
    weights_MT[:, 2] = 0.3
    share_M = torch.ones(100)
    assert selection.by_attention(weights_MT, share_M).argmax() == 1
    share_M[0] = 0.1
    assert selection.by_attention(weights_MT, share_M).argmax() == 2


def test_heavy_hitters_are_what_the_last_tokens_look_at_and_they_themselves():
    tokens, last = 100, OBSERVED
    key_TD = torch.eye(tokens)
    query_MD = 20 * torch.eye(tokens)[[40] * last]
    asked = Asked(query_LHMD=query_MD[None, None], beside_LHM=torch.zeros(1, 1, last))
    kept = selection.kept(selection.by_last_tokens(asked, 0, 0, key_TD, last), last + 8).tolist()
    assert kept == [0, *range(37, 44), *range(tokens - last, tokens)]


def test_random_scores_follow_from_the_seed():
    first, again, other = (selection.at_random(50, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)
