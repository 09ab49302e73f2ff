"""What a router is worth: success against cost, beside the ways to choose that need no router.

A router's curve is what it makes of a table at every frugality. Its peers, on the same rows:

- `single`: one model for everything;
- `random`: the cheapest tier or the reference, by chance, in every mixture: a straight line;
- `mixed`: the best that chance can do with any two models: the upper hull of the single ones;
- `by_length`: the router's own rule without a predictor, each model's mean success in its place: it knows prices and the question's length.

`saving` is what is spared against asking the reference always, at the last point up to which, from frugality 0 on, the share `keep` of its
successes is kept. The point is found on the rows that are told of, for the router as for its peers; what comes of the frugality that was
chosen before is `chosen`. `area` is the mean gain in success over the cheapest model for costs between the cheapest model's and the
reference's, as a share of the reference's gain (RouteLLM, Ong et al. 2024, §2.2: APGR over cost); chance has 0.5.

Intervals are of 95 %, by the percentile bootstrap over groups of rows, the point found again in each resample.

Axes: N row, K tier, L frugality, B resample.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from foreword.errors import DataError
from foreword.gateway.routing.fitting import Features, choices, dearness
from foreword.gateway.routing.router import Router
from foreword.gateway.routing.table import Table

RESAMPLES = 1000
_AT_ONCE = 100
_COSTS = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """A figure and its interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """What a way to choose without a router comes to; the area is None where the cheapest model is the reference."""

    saving: float
    area: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """A router on rows that it did not learn from.

    Attributes:
        reference: the tier that succeeded most often where the router was fitted.
        accuracy, cost: of each tier alone: mean success, mean cost.
        curve: cost and success for rising frugality.
        single: the cheapest tier that keeps `keep` on its own, and what it spares.
        chosen: `saving` and `kept` (share of the reference's successes) at the router's own frugality, and `asked`, each tier's share.
    """

    rows: int
    left_out: int
    reference: str
    keep: float
    accuracy: dict[str, float]
    cost: dict[str, float]
    curve: tuple[tuple[float, float], ...]
    saving: Measured
    area: Measured | None
    random: Peer
    mixed: Peer
    by_length: Peer
    single: str
    single_saving: float
    chosen_saving: Measured
    chosen_kept: Measured
    asked: dict[str, float]


def evaluate(
    router: Router, table: Table, features: Features, *, keep: float | None = None, resamples: int = RESAMPLES, seed: int = 0
) -> Evaluation:
    """A router's worth on a table.

    Args:
        keep: by default what the router was fitted to keep.

    Raises:
        DataError: the table is of other tiers, or there is nothing to judge on.
    """
    if table.tiers != router.tiers:
        raise DataError(
            f"The router knows {', '.join(router.tiers)}, and the table is of {', '.join(table.tiers)}. Read it with the former."
        )
    known_N = table.known()
    left_out = int((~known_N).sum())
    table, features = table.rows(known_N), features.rows(known_N)
    if not len(table):
        raise DataError("No row has a known success for every tier. Give a table that has.")
    keep = router.header.keep if keep is None else keep
    place = router.tiers.index(router.header.reference)
    expected_NK = np.stack(
        [router.probabilities(question, vector_D) for question, vector_D in zip(table.questions, features.vectors_ND, strict=True)]
    )
    dear_NK = dearness(router, features.lengths_N)
    own_L1 = np.array([router.header.frugality])
    sums = _Sums(table, place, choices(expected_NK, dear_NK), choices(expected_NK, dear_NK, own_L1)[0])
    once = sums.of(np.ones((1, len(table))))
    many = sums.resampled(resamples, np.random.default_rng(seed))
    by_length = _Sums(table, place, choices(np.broadcast_to(table.success_NK.mean(axis=0), expected_NK.shape), dear_NK), sums.own_N)
    hull = _hull(once.cost_BK[0], once.success_BK[0])
    line = _hull(*(values[[int(once.cost_BK[0].argmin()), place]] for values in (once.cost_BK[0], once.success_BK[0])))
    single = _cheapest(once, place, keep)
    area = once.areas(place)[0]
    return Evaluation(
        rows=len(table),
        left_out=left_out,
        reference=router.header.reference,
        keep=keep,
        accuracy=dict(zip(table.tiers, map(float, once.success_BK[0]), strict=True)),
        cost=dict(zip(table.tiers, map(float, once.cost_BK[0]), strict=True)),
        curve=tuple(zip(map(float, once.cost_BL[0]), map(float, once.success_BL[0]), strict=True)),
        saving=_measured(once.savings(place, keep), many.savings(place, keep)),
        area=None if np.isnan(area) else _measured(once.areas(place), many.areas(place)),
        random=_peer(line, once, place, keep),
        mixed=_peer(hull, once, place, keep),
        by_length=_length_peer(by_length.of(np.ones((1, len(table)))), place, keep),
        single=table.tiers[single],
        single_saving=float(1 - once.cost_BK[0, single] / once.cost_BK[0, place]),
        chosen_saving=_measured(*(1 - sample.own_cost_B / sample.cost_BK[:, place] for sample in (once, many))),
        chosen_kept=_measured(*(sample.own_success_B / np.maximum(sample.success_BK[:, place], 1e-12) for sample in (once, many))),
        asked={tier: float((sums.own_N == tier_place).mean()) for tier_place, tier in enumerate(table.tiers)},
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Means:
    """Means of each resample."""

    success_BL: np.ndarray
    cost_BL: np.ndarray
    success_BK: np.ndarray
    cost_BK: np.ndarray
    own_success_B: np.ndarray
    own_cost_B: np.ndarray

    def savings(self, reference: int, keep: float) -> np.ndarray:
        """What is spared B at the last frugality up to which enough is kept; 0 where already the first keeps too little."""
        short_BL = self.success_BL < keep * self.success_BK[:, [reference]] - 1e-12
        first_B = np.where(short_BL.any(axis=1), short_BL.argmax(axis=1), short_BL.shape[1])
        last_B = np.maximum(first_B - 1, 0)
        cost_B = self.cost_BL[np.arange(len(last_B)), last_B]
        return np.where(first_B > 0, np.maximum(0.0, 1 - cost_B / self.cost_BK[:, reference]), 0.0)

    def areas(self, reference: int) -> np.ndarray:
        """The area B; NaN where the reference is the cheapest, or gains nothing over it."""
        return np.array([self._area(row, reference) for row in range(len(self.cost_BK))])

    def _area(self, row: int, reference: int) -> float:
        order = np.argsort(self.cost_BL[row], kind="stable")
        return _area(self.cost_BL[row, order], self.success_BL[row, order], self.cost_BK[row], self.success_BK[row], reference)


class _Sums:
    """Every row's success and cost at every frugality, to be weighed again and again."""

    def __init__(self, table: Table, reference: int, chosen_LN: np.ndarray, own_N: np.ndarray) -> None:
        rows = np.arange(len(table))
        self._success_LN = table.success_NK[rows, chosen_LN]
        self._cost_LN = table.cost_NK[rows, chosen_LN]
        self._table, self.own_N = table, own_N
        self._own_N2 = np.stack([table.success_NK[rows, own_N], table.cost_NK[rows, own_N]], axis=1)
        _, self._group_N = np.unique(np.array(table.groups), return_inverse=True)

    def of(self, weights_BN: np.ndarray) -> _Means:
        """Means with each row's weight."""
        total_B1 = weights_BN.sum(axis=1, keepdims=True)
        own_B2 = weights_BN @ self._own_N2 / total_B1
        return _Means(
            success_BL=weights_BN @ self._success_LN.T / total_B1,
            cost_BL=weights_BN @ self._cost_LN.T / total_B1,
            success_BK=weights_BN @ self._table.success_NK / total_B1,
            cost_BK=weights_BN @ self._table.cost_NK / total_B1,
            own_success_B=own_B2[:, 0],
            own_cost_B=own_B2[:, 1],
        )

    def resampled(self, resamples: int, generator: np.random.Generator) -> _Means:
        """Means of resamples of the groups."""
        groups = int(self._group_N.max()) + 1
        parts = []
        for start in range(0, resamples, _AT_ONCE):
            drawn_BG = generator.multinomial(groups, np.full(groups, 1 / groups), size=min(_AT_ONCE, resamples - start))
            parts.append(self.of(drawn_BG[:, self._group_N].astype(np.float64)))
        return _Means(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in _Means.__slots__})


def _measured(once_B: np.ndarray, many_B: np.ndarray) -> Measured:
    low, high = np.nanquantile(many_B, [0.025, 0.975])
    return Measured(value=float(once_B[0]), low=float(low), high=float(high))


def _area(cost_P: np.ndarray, success_P: np.ndarray, cost_K: np.ndarray, success_K: np.ndarray, reference: int) -> float:
    cheapest = int(cost_K.argmin())
    gain = success_K[reference] - success_K[cheapest]
    if cost_K[reference] <= cost_K[cheapest] or gain <= 0:
        return float("nan")
    if cost_P[-1] < cost_K[reference] and success_P[-1] < success_K[reference]:
        # The reference can always be asked more often than the router would.
        cost_P, success_P = np.append(cost_P, cost_K[reference]), np.append(success_P, success_K[reference])
    at_C = np.interp(np.linspace(cost_K[cheapest], cost_K[reference], _COSTS), cost_P, success_P)
    return float((at_C - success_K[cheapest]).mean() / gain)


def _hull(cost_K: np.ndarray, success_K: np.ndarray) -> list[tuple[float, float]]:
    """The points, by rising cost, between which mixtures by chance are best."""
    hull: list[tuple[float, float]] = []
    for cost, success in sorted(zip(map(float, cost_K), map(float, success_K), strict=True), key=lambda point: (point[0], -point[1])):
        if hull and success <= hull[-1][1]:
            continue
        while len(hull) > 1 and (success - hull[-2][1]) * (hull[-1][0] - hull[-2][0]) >= (hull[-1][1] - hull[-2][1]) * (cost - hull[-2][0]):
            hull.pop()
        hull.append((cost, success))
    return hull


def _peer(points: Sequence[tuple[float, float]], once: _Means, reference: int, keep: float) -> Peer:
    cost_P, success_P = (np.array(values) for values in zip(*points, strict=True))
    needed = keep * once.success_BK[0, reference]
    cost = float(np.interp(needed, success_P, cost_P))
    area = _area(cost_P, success_P, once.cost_BK[0], once.success_BK[0], reference)
    return Peer(saving=max(0.0, 1 - cost / float(once.cost_BK[0, reference])), area=None if np.isnan(area) else area)


def _length_peer(once: _Means, reference: int, keep: float) -> Peer:
    area = once.areas(reference)[0]
    return Peer(saving=float(once.savings(reference, keep)[0]), area=None if np.isnan(area) else float(area))


def _cheapest(once: _Means, reference: int, keep: float) -> int:
    """The cheapest tier that keeps enough on its own."""
    enough = np.flatnonzero(once.success_BK[0] >= keep * once.success_BK[0, reference])
    return int(min(enough, key=lambda tier: once.cost_BK[0, tier]))
