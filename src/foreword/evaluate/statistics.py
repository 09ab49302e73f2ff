"""How sure a measured difference is: intervals for one contender, paired tests for two on the same rows.

Everything takes a seed and is deterministic given it. Resampling treats rows as independent; it says nothing about other seeds of
training, other data or other prompts.

Sources: Efron & Tibshirani 1993, "An Introduction to the Bootstrap" (percentile intervals, §13.3; permutation tests, ch. 15);
Koehn 2004, "Statistical Significance Tests for Machine Translation Evaluation" (paired bootstrap for BLEU); Wilson 1927;
McNemar 1947; Phipson & Smyth 2010 (a resampled p-value is never 0).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike

from foreword.errors import EvaluationError
from foreword.evaluate.scorer import Statistic

EXACT_ROWS = 12
"""Up to so many differing rows, `paired_permutation` goes through all sign patterns (4,096)."""

_CHUNK = 1000  # sign patterns held in memory at once


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A confidence interval; `level` .95 means that the method covers the truth in 95 % of repetitions, about."""

    low: float
    high: float
    level: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PairedResult:
    """The difference a - b between two contenders on the same rows, its interval, and a two-sided p-value."""

    difference: float
    interval: Interval
    p_value: float


def bootstrap_interval(statistic: Statistic, n: int, *, level: float = 0.95, resamples: int = 1000, seed: int) -> Interval:
    """Percentile bootstrap interval of a statistic over `n` rows (Efron & Tibshirani §13.3).

    Args:
        statistic: the metric over chosen rows, e.g. `Score.statistic`.

    Raises:
        EvaluationError: an argument is out of range, or the statistic is not a number on some resample.
    """
    _check(n, level, resamples)
    values = np.array([statistic(rows) for rows in _resamples(n, resamples, seed)])
    return _percentiles(values, level)


def paired_bootstrap(
    stat_a: Statistic, stat_b: Statistic, n: int, *, level: float = 0.95, resamples: int = 1000, seed: int
) -> PairedResult:
    """Paired bootstrap of a - b: both statistics are computed on the same resampled rows (Koehn 2004, §4).

    Koehn asks how often a beats b over the resamples. The p-value here is the two-sided form: twice the smaller of the shares of
    resamples with a difference at most 0 and at least 0, the data themselves counted as one resample, so that it is never 0.

    Raises:
        EvaluationError: an argument is out of range, or a statistic is not a number on some resample.
    """
    _check(n, level, resamples)
    everything = np.arange(n)
    differences = np.array([stat_a(rows) - stat_b(rows) for rows in _resamples(n, resamples, seed)])
    interval = _percentiles(differences, level)
    below, above = int((differences <= 0).sum()), int((differences >= 0).sum())
    return PairedResult(
        difference=float(stat_a(everything) - stat_b(everything)),
        interval=interval,
        p_value=min(1.0, 2 * (min(below, above) + 1) / (resamples + 1)),
    )


def paired_permutation(per_example_a: ArrayLike, per_example_b: ArrayLike, *, resamples: int = 10_000, seed: int = 0) -> float:
    """Two-sided p-value that the mean difference of paired rows is 0, by swapping a and b within rows.

    Exact when at most `EXACT_ROWS` rows differ, else over random sign patterns with the observed one counted in.

    Args:
        per_example_a: shape (rows,), e.g. `Score.per_example`.
        per_example_b: the same of the other contender, rows in the same order.

    Raises:
        EvaluationError: the two differ in length, are empty, or hold something that is not a finite number.
    """
    a, b = np.asarray(per_example_a, dtype=np.float64), np.asarray(per_example_b, dtype=np.float64)
    _check_pair(a, b)
    _check(len(a), 0.5, resamples)
    differences = a - b
    if not np.isfinite(differences).all():
        raise EvaluationError("A permutation test needs finite numbers on every row; at least one is infinite or not a number.")
    differences = differences[differences != 0]
    # Sums that are equal but for rounding count as equal; without the margin the observed pattern itself could be missed.
    bound = abs(differences.sum()) - 1e-9 * np.abs(differences).sum()
    exact = len(differences) <= EXACT_ROWS
    patterns = _all_signs(len(differences)) if exact else _random_signs(len(differences), resamples, seed)
    extreme, total = (0, 0) if exact else (1, 1)
    for signs in patterns:
        extreme += int((np.abs(signs @ differences) >= bound).sum())
        total += len(signs)
    return extreme / total


def wilson_interval(successes: int, n: int, *, level: float = 0.95) -> Interval:
    """Score interval of a share (Wilson 1927): sound for few rows and for shares near 0 or 1, where ± 1.96·σ is not.

    Raises:
        EvaluationError: `n` is not positive, `successes` is not in 0..n, or `level` is not between 0 and 1.
    """
    _check(n, level, 1)
    if not 0 <= successes <= n:
        raise EvaluationError(f"`successes` must be in 0..{n}; got {successes}.")
    z = NormalDist().inv_cdf((1 + level) / 2)
    share = successes / n
    centre = share + z * z / (2 * n)
    spread = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    return Interval(
        low=0.0 if successes == 0 else max(0.0, (centre - spread) / scale),
        high=1.0 if successes == n else min(1.0, (centre + spread) / scale),
        level=level,
    )


def mcnemar(correct_a: ArrayLike, correct_b: ArrayLike) -> float:
    """Exact two-sided p-value that two contenders are right equally often (McNemar 1947, binomial form).

    Only rows where one is right and the other wrong count; under the null each is a fair coin.

    Args:
        correct_a: shape (rows,), true or false.
        correct_b: the same of the other contender, rows in the same order.

    Raises:
        EvaluationError: the two differ in length or are empty.
    """
    a, b = np.asarray(correct_a, dtype=bool), np.asarray(correct_b, dtype=bool)
    _check_pair(a, b)
    only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
    discordant, fewer = only_a + only_b, min(only_a, only_b)
    tail, ways = 0, 1  # ways: discordant over count; kept as it goes, since each on its own is slow for thousands of rows
    for count in range(fewer + 1):
        tail += ways
        ways = ways * (discordant - count) // (count + 1)
    return min(1.0, 2 * tail / 2**discordant)


def _resamples(n: int, resamples: int, seed: int) -> Iterator[np.ndarray]:
    generator = np.random.default_rng(seed)
    for _ in range(resamples):
        yield generator.integers(0, n, size=n)


def _percentiles(values: np.ndarray, level: float) -> Interval:
    bad = int(np.isnan(values).sum())
    if bad:
        raise EvaluationError(f"The statistic is not a number on {bad} of {len(values)} resamples, so it has no interval.")
    # The nearest actual value rather than a mix of two: an infinite perplexity would turn a mix into NaN.
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2], method="nearest")
    return Interval(low=float(low), high=float(high), level=level)


def _all_signs(rows: int) -> Iterator[np.ndarray]:
    patterns = np.arange(2**rows)[:, None] >> np.arange(rows)
    yield 1.0 - 2.0 * (patterns & 1)


def _random_signs(rows: int, resamples: int, seed: int) -> Iterator[np.ndarray]:
    generator = np.random.default_rng(seed)
    for start in range(0, resamples, _CHUNK):
        yield 1.0 - 2.0 * generator.integers(0, 2, size=(min(_CHUNK, resamples - start), rows), dtype=np.int8)


def _check(n: int, level: float, resamples: int) -> None:
    if n < 1:
        raise EvaluationError(f"Statistics need at least one row; got {n}.")
    if not 0 < level < 1:
        raise EvaluationError(f"`level` must lie between 0 and 1, e.g. 0.95; got {level}.")
    if resamples < 1:
        raise EvaluationError(f"`resamples` must be at least 1, and 1000 or more to be of use; got {resamples}.")


def _check_pair(a: np.ndarray, b: np.ndarray) -> None:
    if a.ndim != 1 or a.shape != b.shape or not len(a):
        raise EvaluationError(f"A paired test needs two lists of the same rows, one number each; got shapes {a.shape} and {b.shape}.")
