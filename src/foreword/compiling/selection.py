"""Which positions of a text's keys and values to keep; each layer and KV head may keep others. Named in `settings.SELECTIONS`.

`fitted`        as `attention`, and what is kept is moved to stand for the whole text (`matching.py`)
`attention`     those to which some reference query attends most (Zweiger et al. 2026, with the largest share in place of the mean square)
`kvzip`         the same, of queries from reading the text again only (Kim et al. 2025)
`heavy-hitter`  those that the text's own last tokens attended to, smoothed over neighbours, and these tokens (SnapKV, Li et al. 2024)
`random`        any, the same for all heads
`truncate`      the first ones, read as a text of their own

The first position is kept by all: it is the sink, to which attention goes that has nowhere to go.

Axes: M query, T token of the text, N kept position, D head dimension.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from foreword.compiling import matching
from foreword.engine import Asked

OBSERVED = 32
"""Last tokens of the text whose attention `heavy-hitter` looks at (SnapKV's observation window)."""
NEIGHBOURS = 7
"""Over how many neighbouring positions it smooths (SnapKV's pooling kernel)."""
QUERIES_AT_A_TIME = 1024


def kept(score_T: Tensor, count: int) -> Tensor:
    """Indices of the first position and the best others, ascending: N."""
    score_T = score_T.clone()
    score_T[0] = torch.inf
    return score_T.topk(min(count, len(score_T))).indices.sort().values


def by_attention(weights_MT: Tensor, share_M: Tensor) -> Tensor:
    """Scores T: each key's largest share of a query's whole attention."""
    parts = zip(weights_MT.split(QUERIES_AT_A_TIME), share_M.split(QUERIES_AT_A_TIME), strict=True)
    return torch.stack([(weights_PT * share_P[:, None]).amax(0) for weights_PT, share_P in parts]).amax(0)


def by_last_tokens(asked: Asked, layer: int, head: int, key_TD: Tensor, last: int) -> Tensor:
    """Scores T of `heavy-hitter`; `asked` is what the `last` tokens asked of those before them."""
    before = len(key_TD) - last
    weights_MB, share_M = matching.attention(asked.query_LHMD[layer, head], asked.beside_LHM[layer, head], key_TD[:before])
    mass_B = (weights_MB * share_M[:, None]).sum(0)
    smooth_B = F.avg_pool1d(mass_B[None, None], NEIGHBOURS, stride=1, padding=NEIGHBOURS // 2, count_include_pad=False)[0, 0]
    return torch.cat([smooth_B, smooth_B.new_full((len(key_TD) - before,), float(smooth_B.max()) + 1.0)])


def observed(tokens: int) -> int:
    """How many last tokens of a text of that length `heavy-hitter` looks at."""
    return min(OBSERVED, tokens // 2)


def at_random(tokens: int, *, seed: int) -> Tensor:
    """Scores T that keep any positions."""
    return torch.rand(tokens, generator=torch.Generator().manual_seed(seed))
