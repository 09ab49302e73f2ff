"""How probable it is that a cached answer is right, and how sure that is: a logistic model that learns from one observation at a time.

vCache (Schroeder et al. 2025, "vCache: Verified Semantic Prompt Caching", §4.2) fits a logistic curve over similarity for each cached
entry, and takes the entry's threshold at the unfavourable end of its confidence band. An entry needs half a dozen observations for that,
and most entries of real traffic never see as many. Here the curve is common to all entries of a tenant, over more than the similarity, and
each entry has an offset of its own with a normal prior: an entry without observations answers by the common curve, another by its own.

The posterior is held as a normal one and updated by assumed-density filtering (Opper 1998, "A Bayesian Approach to On-line Learning"; the
logistic step is that of Spiegelhalter & Lauritzen 1990): one Newton step an observation, whose cost does not grow with what was seen.

Axes: F feature, X expanded feature, C candidate.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from foreword.errors import ConfigError

_START = 0.25
"""The variance of the calibration's shift before anything is seen."""
_START_2 = np.array([0.25, 0.0225])
"""The variances of the calibration's shift and slope before anything is seen."""
_FORGETTING = 1.002
"""What they grow by with each observation; some five hundred are remembered."""
_CEILING = 0.98
"""The most probable that an answer can be right."""
_PROBIT = math.pi / 8
"""Turns a normal uncertainty of the logit into a flatter curve (MacKay 1992, "The Evidence Framework Applied to Classification")."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Offset:
    """What one entry has of its own, as a logit: how much more probably than by the common curve it is right, and how sure that is."""

    mean: float
    variance: float


_NO_OFFSET = Offset(mean=0.0, variance=0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Logit:
    """A belief in one answer: normal over the logit of its being right."""

    mean: float
    variance: float

    @property
    def probability(self) -> float:
        """That the answer is right, its uncertainty counted in."""
        return _sigmoid(self.mean / math.sqrt(1 + _PROBIT * self.variance))


class Belief:
    """The common curve. Not safe to use from several threads at once."""

    def __init__(
        self, centre_F: np.ndarray, scale_F: np.ndarray, *, assumed: float, assumed_F: np.ndarray, prior: float, entry_prior: float
    ) -> None:
        """
        Args:
            centre_F: about the mean of each feature, and `scale_F` its spread, so that one prior suits all.
            assumed: the logit in the centre before anything is seen, and `assumed_F` what a step of one spread adds to it.
            prior: standard deviation of each weight before anything is seen.
            entry_prior: standard deviation of the entries' offsets; 0 gives all entries one curve.
        """
        self._centre_F, self._scale_F = np.asarray(centre_F, float), np.asarray(scale_F, float)
        self._first, self._second = np.triu_indices(len(self._centre_F))
        size = 1 + len(self._centre_F) + len(self._first)
        self._mean_X = np.zeros(size)
        self._mean_X[: 1 + len(self._centre_F)] = assumed, *assumed_F
        self._covariance_XX = np.eye(size) * prior**2
        # There are many products, and each matters less.
        self._covariance_XX[1 + len(self._centre_F) :] *= 0.25
        self.entry_prior = Offset(mean=0.0, variance=entry_prior**2)
        self.observations = 0

    def logits(self, features_CF: np.ndarray, offsets: list[Offset]) -> list[Logit]:
        """Beliefs in several candidates, given their entries' offsets."""
        expanded_CX = self._expand(features_CF)
        means = expanded_CX @ self._mean_X
        variances = np.einsum("cx,cx->c", expanded_CX @ self._covariance_XX, expanded_CX)
        return [
            Logit(mean=float(mean) + offset.mean, variance=max(float(variance), 0.0) + offset.variance)
            for mean, variance, offset in zip(means, variances, offsets, strict=True)
        ]

    def observe(self, features_F: np.ndarray, offset: Offset, *, same: bool) -> Offset:
        """Learns whether a cached answer was right; returns what its entry's offset becomes."""
        x_X = self._expand(features_F[None])[0]
        gain, shrink, spread_X = _step(x_X, self._mean_X, self._covariance_XX, offset, same=same)
        self._mean_X += spread_X * gain
        self._covariance_XX -= np.outer(spread_X, spread_X) * shrink
        self.observations += 1
        return Offset(
            mean=offset.mean + offset.variance * gain,
            variance=max(offset.variance - offset.variance**2 * shrink, 0.0),
        )

    def state(self) -> dict[str, Any]:
        """Everything that was learnt, as numbers and arrays."""
        return {"mean_X": self._mean_X.copy(), "covariance_XX": self._covariance_XX.copy(), "observations": self.observations}

    def restore(self, state: dict[str, Any]) -> None:
        """Takes up what `state` gave. Raises `ConfigError` where it was learnt over other features."""
        mean_X, covariance_XX = np.array(state["mean_X"], float), np.array(state["covariance_XX"], float)
        if mean_X.shape != self._mean_X.shape or covariance_XX.shape != self._covariance_XX.shape:
            raise ConfigError(
                f"What a semantic cache learnt was learnt over {mean_X.size} numbers, and this version looks at {self._mean_X.size}. "
                "Start with an empty one."
            )
        self._mean_X, self._covariance_XX, self.observations = mean_X, covariance_XX, int(state["observations"])

    def _expand(self, features_CF: np.ndarray) -> np.ndarray:
        """A one, the features brought to like scale, and their products two by two, C X."""
        scaled_CF = np.clip((features_CF - self._centre_F) / self._scale_F, -4.0, 4.0)
        ones_C1 = np.ones((len(scaled_CF), 1))
        return np.concatenate([ones_C1, scaled_CF, scaled_CF[:, self._first] * scaled_CF[:, self._second]], axis=1)


class Calibration:
    """Sets probabilities right by how often what they were said of came true: by a line through their logits (Platt 1999), and a ceiling.

    The best of several candidates is right less often than each of them for itself would be, and a curve learns that from nothing else. The
    line can be flatter than what was said and never steeper: most of what is observed was too risky to be answered, and nothing about it
    makes bolder words about what is answered right. The ceiling stands for what no likeness of questions foretells: answers that differ
    though the questions do not. What was seen long ago is forgotten, as far as to the uncertainty at the start.
    """

    def __init__(self) -> None:
        self._mean_2 = np.array([0.0, 1.0])
        self._covariance_22 = np.diag(_START_2)

    def probability(self, said: float) -> float:
        """What a probability that was said comes to."""
        shift, slope = self._mean_2
        return _CEILING * _sigmoid(float(shift) + min(float(slope), 1.0) * _logit(said))

    def observe(self, said: float, *, same: bool, weight: int = 1) -> None:
        """One of which `said` was said came true, or did not. Args: weight: how many it stands for."""
        x_2 = np.array([1.0, _logit(said)])
        for _ in range(weight):
            gain, shrink, spread_2 = _step(x_2, self._mean_2, self._covariance_22, _NO_OFFSET, same=same)
            self._mean_2 += spread_2 * gain
            self._covariance_22 -= np.outer(spread_2, spread_2) * shrink
        if (self._covariance_22.diagonal() * _FORGETTING <= _START_2).all():
            self._covariance_22 *= _FORGETTING

    def state(self) -> dict[str, Any]:
        """What was learnt."""
        return {"mean_2": self._mean_2.copy(), "covariance_22": self._covariance_22.copy()}

    def restore(self, state: dict[str, Any]) -> None:
        """Takes up what `state` gave."""
        self._mean_2, self._covariance_22 = np.array(state["mean_2"], float), np.array(state["covariance_22"], float)


def _step(x_X: np.ndarray, mean_X: np.ndarray, covariance_XX: np.ndarray, offset: Offset, *, same: bool) -> tuple[float, float, np.ndarray]:
    """One Newton step of assumed-density filtering: the step along the spread, how much that shrinks, and the spread itself."""
    spread_X = covariance_XX @ x_X
    variance = max(float(x_X @ spread_X), 0.0) + offset.variance
    expected = _sigmoid((float(x_X @ mean_X) + offset.mean) / math.sqrt(1 + _PROBIT * variance))
    curvature = max(expected * (1 - expected), 1e-4)
    return (float(same) - expected) / (1 + curvature * variance), curvature / (1 + curvature * variance), spread_X


def _logit(probability: float) -> float:
    bounded = min(max(probability, 1e-6), 1 - 1e-6)
    return math.log(bounded / (1 - bounded))


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))
