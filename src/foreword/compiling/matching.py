"""Fits few keys and values so that attention over them gives what attention over many gave (Attention Matching, Zweiger et al. 2026).

All of it concerns one KV head, and queries that are already scaled, so that a score is a plain product.

Attention over [prefix | rest] is a mean of the two parts' outputs, weighted by their masses (sums of exponentiated scores). So a
smaller prefix is as good as the whole one where it gives each query (a) the same mass and (b) the same output. The paper gives every
kept key a bias for (a); a plain KV prefix has none, so here each key itself is moved until the queries that attend to it score it
higher by that much.

Axes: M query, T key of the whole prefix, N kept key, D head dimension.
"""

from __future__ import annotations

import torch
from torch import Tensor

MASS_ROUNDS = 60
"""Multiplicative updates of the masses; more changed nothing (`docs/lab-notes.md`)."""
LARGEST_LIFT = 4.0
"""Bound on how much a key's log mass may be raised."""
KEY_RIDGE, VALUE_RIDGE = 1e-2, 1.0
"""Pull towards the kept keys and values as they were, relative to the diagonal of the normal equations. With a tenth of it for values, or a
hundredth, questions that are not among the references are answered worse than without any fit (`docs/lab-notes.md`)."""
KEYS_AT_A_TIME = 128
LIFTING_QUERIES = 2048
"""Most queries that say how keys are lifted: there are only D numbers to find for each key."""


def attention(query_MD: Tensor, beside_M: Tensor, key_TD: Tensor) -> tuple[Tensor, Tensor]:
    """Softmax weights over the prefix's keys alone, M T, and the share of each query's whole attention that the prefix gets, M."""
    # In place throughout: for a text of 6,000 tokens this is the largest thing in memory.
    weights_MT = query_MD @ key_TD.T
    largest_M = weights_MT.amax(-1)
    sum_M = weights_MT.sub_(largest_M[:, None]).exp_().sum(-1)
    return weights_MT.div_(sum_M[:, None]), torch.sigmoid(largest_M + sum_M.log() - beside_M)


def fit(query_MD: Tensor, weights_MT: Tensor, share_M: Tensor, key_TD: Tensor, value_TD: Tensor, kept_N: Tensor) -> tuple[Tensor, Tensor]:
    """Keys and values, N D each, in place of the kept ones.

    Args:
        query_MD, weights_MT, share_M: reference queries, and what `attention` gave for them.
        kept_N: indices of the kept keys.
    """
    kept_weights_MN = weights_MT[:, kept_N]
    lift_N = _lifts(kept_weights_MN, share_M)
    key_ND = _lifted(query_MD, kept_weights_MN * share_M[:, None], key_TD[kept_N], lift_N)
    fitted_MN = torch.softmax(query_MD @ key_ND.T, dim=-1)
    return key_ND, _values(fitted_MN, share_M, weights_MT @ value_TD, value_TD[kept_N])


def _lifts(kept_MN: Tensor, share_M: Tensor) -> Tensor:
    """How much the log mass of each kept key must rise for the kept ones to hold the mass of all: N.

    Non-negative least squares for factors w with `kept_MN @ w` near 1 for each query, by multiplicative updates from w = 1 (Lee & Seung
    2001). A query counts by share · (1 - share), by how much an error of the log mass moves its attention.
    """
    counted_M = share_M * (1 - share_M) + 1e-4
    wanted_N = kept_MN.T @ counted_M
    factor_N = torch.ones_like(wanted_N)
    for _ in range(MASS_ROUNDS):
        found_N = kept_MN.T @ (counted_M * (kept_MN @ factor_N))
        factor_N = factor_N * (wanted_N + 1e-12) / (found_N + 1e-12)
    return factor_N.log().clamp(-LARGEST_LIFT, LARGEST_LIFT)


def _lifted(query_MD: Tensor, counted_MN: Tensor, key_ND: Tensor, lift_N: Tensor) -> Tensor:
    """Keys moved as little as needed to score `lift_N` more with the queries that attend to them: one ridge regression for each key."""
    every = -(-len(query_MD) // LIFTING_QUERIES)
    query_MD, counted_MN = query_MD[::every], counted_MN[::every]
    M, D = query_MD.shape
    squares_ME = (query_MD[:, :, None] * query_MD[:, None, :]).view(M, D * D)
    moved = []
    for counted_MC, key_CD, lift_C in zip(
        counted_MN.split(KEYS_AT_A_TIME, dim=1), key_ND.split(KEYS_AT_A_TIME), lift_N.split(KEYS_AT_A_TIME), strict=True
    ):
        normal_CDD = (counted_MC.T @ squares_ME).view(-1, D, D)
        wanted_CD = (counted_MC.T @ query_MD) * lift_C[:, None]
        moved.append(key_CD + _ridge(normal_CDD, wanted_CD[:, :, None], KEY_RIDGE)[:, :, 0])
    return torch.cat(moved)


def _values(fitted_MN: Tensor, share_M: Tensor, output_MD: Tensor, value_ND: Tensor) -> Tensor:
    """Values that bring the new weights' outputs nearest to the old ones, a query counting by the prefix's share of its attention."""
    counted_MN = fitted_MN * share_M[:, None]
    missing_MD = (output_MD - fitted_MN @ value_ND) * share_M[:, None]
    return value_ND + _ridge(counted_MN.T @ counted_MN, counted_MN.T @ missing_MD, VALUE_RIDGE)


def _ridge(normal: Tensor, wanted: Tensor, ridge: float) -> Tensor:
    """Solves (normal + ridge · its diagonal) x = wanted, in float64: the equations are often nearly singular."""
    normal, wanted = normal.double(), wanted.double()
    diagonal = normal.diagonal(dim1=-2, dim2=-1)
    diagonal += ridge * diagonal + 1e-9 * diagonal.mean(-1, keepdim=True) + 1e-12
    return torch.cholesky_solve(wanted, torch.linalg.cholesky(normal)).float()
