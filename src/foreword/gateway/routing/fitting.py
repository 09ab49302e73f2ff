"""Fits a router to a table: logistic regressions, and the frugality that keeps a share of the most accurate tier's successes.

A part of the table is held out, and nothing is learned from it. On the rest everything that is chosen is chosen on predictions for rows
that were not learned from (cross-fitting in `FOLDS` parts): the penalty by its log-loss, and the frugality as the highest one up to which
the successes kept are, with the confidence asked for, at least the share asked for. The regressions are then fitted to all of the rest.

Newton's steps are taken with Böhning & Lindsay's bound on the Hessian (1988), XᵀX/4, which is the same for every tier, so that it is
inverted once. Success may be a share; where nobody knows it, the row says nothing of that tier.

Axes: N row, K tier, D dimension, M marker, F feature (dimensions scaled, then markers standardised), L frugality.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from foreword.errors import ConfigError, DataError
from foreword.gateway.question import excerpt
from foreword.gateway.routing.markers import markers
from foreword.gateway.routing.router import MOST_DEVIATIONS, Router, RouterHeader
from foreword.gateway.routing.table import Table
from foreword.retrieval.embedder import Embedder

FOLDS = 5
LEAST_ROWS = 50
PENALTIES = (10.0, 30.0, 60.0, 100.0, 300.0)
FRUGALITIES = np.concatenate([[0.0], np.geomspace(1e-4, 100.0, 400)])
VECTOR_SCALE = 4.0
"""What a vector of length 1 is multiplied by, so that one penalty does for its numbers and for markers; chosen on training rows."""
_STEPS, _STILL = 200, 1e-3


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Features:
    """What a router sees of a table's questions."""

    vectors_ND: np.ndarray
    markers_NM: np.ndarray
    lengths_N: np.ndarray

    @classmethod
    def of(cls, table: Table, embedder: Embedder) -> Features:
        """Computes them."""
        return cls(
            vectors_ND=embedder.embed([excerpt(question) for question in table.questions]),
            markers_NM=np.stack([markers(question) for question in table.questions]),
            lengths_N=np.array([len(question) for question in table.questions], dtype=np.float64),
        )

    def rows(self, chosen: np.ndarray) -> Features:
        """Some of them."""
        return Features(vectors_ND=self.vectors_ND[chosen], markers_NM=self.markers_NM[chosen], lengths_N=self.lengths_N[chosen])


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Fitted:
    """What came of fitting.

    Attributes:
        penalty: that was chosen.
        log_loss: of the cross-fitted predictions; `log_loss_of_means` is what each tier's mean success has.
        rows: that were learned from.
        keeps: whether what was to be kept is; where it is not, the router is as little frugal as it can be, and still loses more.
    """

    router: Router
    penalty: float
    log_loss: float
    log_loss_of_means: float
    rows: int
    keeps: bool


def fit(
    table: Table,
    embedder: Embedder,
    *,
    keep: float = 0.95,
    confidence: float = 0.9,
    held_out: float = 0.25,
    features: Features | None = None,
) -> Fitted:
    """A router for the table's tiers.

    Args:
        keep: share of the most accurate tier's successes that is to be kept.
        confidence: with which that holds for questions like the table's; 0.5 makes no allowance for chance.
        features: of the table, where they are there already.

    Raises:
        ConfigError: a share is none.
        DataError: too few rows to learn from, or a tier of which nothing can be learned.
    """
    _check_shares(keep, confidence, held_out)
    learned_N = ~held_out_rows(table, held_out)
    features = (features or Features.of(table, embedder)).rows(learned_N)
    digest, table = table.digest, table.rows(learned_N)
    _check(table)
    predicted = _cross_fitted(features, table)
    losses = {penalty: _log_loss(table.success_NK, expected_NK) for penalty, expected_NK in predicted.items()}
    penalty = min(losses, key=losses.__getitem__)
    reference = _reference(table)
    header = RouterHeader(
        embedder=embedder.name,
        tiers=table.tiers,
        reference=table.tiers[reference],
        reference_cost=float(table.cost_NK[:, reference].mean()),
        frugality=0.0,
        keep=keep,
        held_out=held_out,
        table=digest,
        measured={"rows": len(table), "penalty": penalty, "log_loss": losses[penalty]},
    )
    router = _router(header, features, table, penalty)
    known_N = table.known()
    chosen_LN = choices(predicted[penalty][known_N], dearness(router, features.lengths_N[known_N]))
    frugality, keeps = _frugality(chosen_LN, table.success_NK[known_N], reference, keep=keep, confidence=confidence)
    means_NK = np.broadcast_to(np.nanmean(table.success_NK, axis=0), table.success_NK.shape)
    return Fitted(
        router=router.frugal(frugality),
        penalty=penalty,
        log_loss=losses[penalty],
        log_loss_of_means=_log_loss(table.success_NK, means_NK),
        rows=len(table),
        keeps=keeps,
    )


def held_out_rows(table: Table, share: float) -> np.ndarray:
    """Which rows nothing is learned from."""
    return table.places() >= 1 - share


def dearness(router: Router, lengths_N: np.ndarray) -> np.ndarray:
    """What each row is expected to cost with each tier, N K, against the reference's mean."""
    cost_K3 = router.cost_K3
    return np.maximum(cost_K3[:, 0] + lengths_N[:, None] * cost_K3[:, 1], cost_K3[:, 2]) / router.header.reference_cost


def choices(expected_NK: np.ndarray, dear_NK: np.ndarray, frugalities_L: np.ndarray = FRUGALITIES) -> np.ndarray:
    """The place L N of the tier that each frugality takes for each row."""
    # Small numbers: there are hundreds of them for each row.
    return np.stack([(expected_NK - frugality * dear_NK).argmax(axis=1).astype(np.int16) for frugality in frugalities_L])


def _check_shares(keep: float, confidence: float, held_out: float) -> None:
    if not 0 < keep <= 1:
        raise ConfigError(f"`keep` must be a share above 0, such as 0.95; got {keep:g}.")
    if not 0.5 <= confidence < 1:
        raise ConfigError(f"`confidence` must be from 0.5 to below 1; got {confidence:g}.")
    if not 0 <= held_out < 1:
        raise ConfigError(f"`held_out` must be a share below 1; got {held_out:g}.")


def _check(table: Table) -> None:
    if len(table) < LEAST_ROWS:
        raise DataError(f"There are {len(table)} rows to learn from, and a router needs {LEAST_ROWS}. Add rows, or hold out fewer.")
    for tier, success_N, cost_N in zip(table.tiers, table.success_NK.T, table.cost_NK.T, strict=True):
        known = success_N[~np.isnan(success_N)]
        if len(known) < LEAST_ROWS:
            raise DataError(f"`{tier}` has {len(known)} rows with a known success, and a router needs {LEAST_ROWS}. Add rows.")
        if not cost_N.any():
            raise DataError(f"`{tier}` costs nothing in any row. Give its price, or a small one, so that there is something to weigh.")


def _reference(table: Table) -> int:
    """The most accurate tier; of equals, the cheapest."""
    accuracy_K, cost_K = np.nanmean(table.success_NK, axis=0), table.cost_NK.mean(axis=0)
    return int(min(range(len(cost_K)), key=lambda tier: (-accuracy_K[tier], cost_K[tier])))


def _cross_fitted(features: Features, table: Table) -> dict[float, np.ndarray]:
    """By penalty, what each row's success N K is expected to be by regressions that did not see its group."""
    # Other digits than those that say what is held out.
    fold_N = (table.places() * 2**20 % 1 * FOLDS).astype(int)
    predicted = {penalty: np.empty_like(table.success_NK) for penalty in PENALTIES}
    for fold in range(FOLDS):
        out_N = fold_N == fold
        if not out_N.any():
            continue
        seen = features.rows(~out_N)
        mean_M, spread_M = _moments(seen.markers_NM)
        x_NF, out_NF = _joined(seen, mean_M, spread_M), _joined(features.rows(out_N), mean_M, spread_M)
        for penalty, (weights_KF, bias_K) in zip(PENALTIES, _regressions(x_NF, table.success_NK[~out_N], PENALTIES), strict=True):
            predicted[penalty][out_N] = _sigmoid(out_NF @ weights_KF.T + bias_K)
    return predicted


def _router(header: RouterHeader, features: Features, table: Table, penalty: float) -> Router:
    mean_M, spread_M = _moments(features.markers_NM)
    ((weights_KF, bias_K),) = _regressions(_joined(features, mean_M, spread_M), table.success_NK, (penalty,))
    dimensions = features.vectors_ND.shape[1]
    return Router(
        header=header,
        weights_KD=(weights_KF[:, :dimensions] * VECTOR_SCALE).astype(np.float32),
        weights_KM=weights_KF[:, dimensions:],
        bias_K=bias_K,
        mean_M=mean_M,
        spread_M=spread_M,
        cost_K3=np.stack([_cost_line(features.lengths_N, cost_N) for cost_N in table.cost_NK.T]),
    )


def _moments(markers_NM: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    spread_M = markers_NM.std(axis=0)
    # A marker that never differs says nothing, and must not say much the first time that it does.
    return markers_NM.mean(axis=0), np.where(spread_M > 1e-6, spread_M, 1.0)


def _joined(features: Features, mean_M: np.ndarray, spread_M: np.ndarray) -> np.ndarray:
    seen_NM = np.clip((features.markers_NM - mean_M) / spread_M, -MOST_DEVIATIONS, MOST_DEVIATIONS)
    return np.concatenate([features.vectors_ND * VECTOR_SCALE, seen_NM], axis=1)


def _regressions(x_NF: np.ndarray, success_NK: np.ndarray, penalties: tuple[float, ...]) -> list[tuple[np.ndarray, np.ndarray]]:
    """For each penalty, the weights K F and the bias K of ridge logistic regressions."""
    known_NK = ~np.isnan(success_NK)
    y_NK = np.where(known_NK, success_NK, 0.0)
    x_NF = np.concatenate([x_NF, np.ones((len(x_NF), 1))], axis=1)
    bound_FF = x_NF.T @ x_NF / 4
    found = []
    share_K = np.clip(y_NK.sum(axis=0) / known_NK.sum(axis=0), 1e-3, 1 - 1e-3)
    weights_FK = np.zeros((x_NF.shape[1], y_NK.shape[1]))
    weights_FK[-1] = np.log(share_K / (1 - share_K))
    # From the strongest penalty down, each from where the one before ended.
    for penalty in sorted(penalties, reverse=True):
        ridge_F1 = np.full((x_NF.shape[1], 1), penalty)
        ridge_F1[-1] = 1e-3
        inverse_FF = np.linalg.inv(bound_FF + np.diag(ridge_F1[:, 0]))
        for _ in range(_STEPS):
            left_NK = np.where(known_NK, y_NK - _sigmoid(x_NF @ weights_FK), 0.0)
            step_FK = inverse_FF @ (x_NF.T @ left_NK - ridge_F1 * weights_FK)
            weights_FK = weights_FK + step_FK
            if np.abs(step_FK).max() < _STILL:
                break
        found.append((penalty, weights_FK))
    by_penalty = {penalty: (weights_FK[:-1].T.copy(), weights_FK[-1].copy()) for penalty, weights_FK in found}
    return [by_penalty[penalty] for penalty in penalties]


def _sigmoid(logits: np.ndarray) -> np.ndarray:
    return 1.0 / (1.0 + np.exp(-logits))


def _log_loss(success_NK: np.ndarray, expected_NK: np.ndarray) -> float:
    expected_NK = np.clip(expected_NK, 1e-6, 1 - 1e-6)
    return float(-np.nanmean(success_NK * np.log(expected_NK) + (1 - success_NK) * np.log(1 - expected_NK)))


def _cost_line(lengths_N: np.ndarray, cost_N: np.ndarray) -> np.ndarray:
    """What a request costs by the length of its question, as a line (least squares) with a floor; a falling line is none."""
    spread = lengths_N.var()
    slope = float(((lengths_N - lengths_N.mean()) * (cost_N - cost_N.mean())).mean() / spread) if spread > 0 else 0.0
    slope = max(0.0, slope)
    return np.array([float(cost_N.mean()) - slope * float(lengths_N.mean()), slope, float(cost_N.min())])


def _frugality(chosen_LN: np.ndarray, success_NK: np.ndarray, reference: int, *, keep: float, confidence: float) -> tuple[float, bool]:
    """The highest frugality up to which all of them keep what is to be kept, and whether there is one."""
    rows = np.arange(len(success_NK))
    over_LN = success_NK[rows, chosen_LN] - keep * success_NK[:, reference]
    margin_L = NormalDist().inv_cdf(confidence) * over_LN.std(axis=1) / np.sqrt(len(rows))
    short_L = over_LN.mean(axis=1) < margin_L
    first = int(short_L.argmax()) if short_L.any() else len(short_L)
    return float(FRUGALITIES[max(0, first - 1)]), first > 0
