from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from foreword.errors import EvaluationError
from foreword.evaluate.scorer import mean_score
from foreword.evaluate.statistics import (
    EXACT_ROWS,
    bootstrap_interval,
    mcnemar,
    paired_bootstrap,
    paired_permutation,
    wilson_interval,
)

VALUES = st.lists(st.floats(-100, 100), min_size=1, max_size=30)
FLAGS = st.lists(st.booleans(), min_size=1, max_size=60)


def mean_of(values):
    return mean_score(np.asarray(values)).statistic


@given(values=VALUES, seed=st.integers(0, 2**32 - 1))
def test_interval_holds_the_mean_and_lies_within_the_data(values, seed) -> None:
    interval = bootstrap_interval(mean_of(values), len(values), resamples=200, seed=seed)
    margin = 1e-9 * (1 + max(map(abs, values)))
    assert min(values) - margin <= interval.low <= np.mean(values) + margin
    assert np.mean(values) - margin <= interval.high <= max(values) + margin
    assert interval.level == 0.95


def test_interval_agrees_with_normal_theory_and_scipy() -> None:
    stats = pytest.importorskip("scipy.stats", reason="scipy (extra `compare`) is the reference")
    values = np.random.default_rng(3).normal(5, 2, 400)
    ours = bootstrap_interval(mean_of(values), 400, resamples=4000, seed=1)
    spread = 1.96 * values.std() / math.sqrt(400)
    assert ours.low == pytest.approx(values.mean() - spread, abs=0.02)
    assert ours.high == pytest.approx(values.mean() + spread, abs=0.02)
    theirs = stats.bootstrap((values,), np.mean, method="percentile", n_resamples=4000, rng=np.random.default_rng(2))
    assert (ours.low, ours.high) == pytest.approx(tuple(theirs.confidence_interval), abs=0.02)


def test_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    intervals = [bootstrap_interval(mean_of(rng.normal(0, 1, 60)), 60, level=0.8, resamples=200, seed=i) for i in range(300)]
    covered = sum(interval.low <= 0 <= interval.high for interval in intervals) / 300
    assert covered == pytest.approx(0.8, abs=0.08)


def test_same_seed_same_interval_other_seed_other_interval() -> None:
    statistic = mean_of(np.random.default_rng(0).normal(size=50))
    first, again, other = (bootstrap_interval(statistic, 50, resamples=100, seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_an_infinite_value_gives_an_infinite_bound_and_not_a_number_an_error() -> None:
    interval = bootstrap_interval(mean_of([1.0, 2.0, math.inf]), 3, resamples=100, seed=0)
    assert (interval.low < 3, interval.high) == (True, math.inf)
    with pytest.raises(EvaluationError, match="not a number on"):
        bootstrap_interval(mean_of([1.0, math.nan]), 2, resamples=100, seed=0)


@pytest.mark.parametrize("bad", [{"n": 0}, {"level": 0.0}, {"level": 95}, {"resamples": 0}])
def test_arguments_out_of_range_are_refused(bad) -> None:
    arguments = {"n": 3, "level": 0.95, "resamples": 10, **bad}
    with pytest.raises(EvaluationError, match="got"):
        bootstrap_interval(lambda rows: 0.0, arguments["n"], level=arguments["level"], resamples=arguments["resamples"], seed=0)


def test_paired_bootstrap_sees_a_difference_that_unpaired_intervals_hide() -> None:
    """Rows differ far more than contenders do; on the same rows a small steady gain is plain."""
    rng = np.random.default_rng(4)
    rows = rng.normal(0, 10, 100)
    a, b = rows + 0.5 + rng.normal(0, 0.2, 100), rows
    result = paired_bootstrap(mean_of(a), mean_of(b), 100, seed=0)
    assert result.difference == pytest.approx((a - b).mean())
    assert 0.4 < result.interval.low < result.difference < result.interval.high < 0.6
    assert result.p_value == pytest.approx(2 / 1001)
    assert bootstrap_interval(mean_of(a), 100, seed=0).low < rows.mean()


@given(a=VALUES, shift=st.floats(-5, 5), seed=st.integers(0, 1000))
def test_paired_bootstrap_is_antisymmetric(a, shift, seed) -> None:
    b = [value + shift * (index % 2) for index, value in enumerate(a)]
    one = paired_bootstrap(mean_of(a), mean_of(b), len(a), resamples=50, seed=seed)
    two = paired_bootstrap(mean_of(b), mean_of(a), len(a), resamples=50, seed=seed)
    assert one.difference == -two.difference
    assert one.p_value == two.p_value
    assert 0 < one.p_value <= 1


def test_equal_contenders_have_no_difference() -> None:
    result = paired_bootstrap(mean_of([1, 2, 3]), mean_of([1, 2, 3]), 3, resamples=100, seed=0)
    assert (result.difference, result.interval.low, result.interval.high, result.p_value) == (0, 0, 0, 1)


@given(pairs=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=40))
def test_permutation_p_lies_in_0_to_1_and_does_not_know_the_order(pairs) -> None:
    a, b = np.array(pairs, dtype=float).T
    p = paired_permutation(a, b, resamples=200)
    assert 0 < p <= 1
    assert paired_permutation(b, a, resamples=200) == pytest.approx(p, abs=0.15 if len(pairs) > EXACT_ROWS else 0)
    if (a == b).all():
        assert p == 1


def test_exact_permutation_by_hand() -> None:
    assert paired_permutation([1, 1, 1, 1], [0, 0, 0, 0]) == 2 / 16
    assert paired_permutation([1, 1, 1, 0], [0, 0, 0, 1]) == 10 / 16
    assert paired_permutation([5, 5, 1], [5, 5, 0]) == 1  # one differing row says nothing


@given(a=st.lists(st.floats(-10, 10), min_size=3, max_size=9), seed=st.integers(0, 1000))
def test_exact_permutation_agrees_with_scipy(a, seed) -> None:
    stats = pytest.importorskip("scipy.stats", reason="scipy (extra `compare`) is the reference")
    b = np.random.default_rng(seed).normal(size=len(a))
    assume(abs((np.array(a) - b).sum()) > 1e-6)
    theirs = stats.permutation_test((a, b), lambda x, y: np.mean(x - y), permutation_type="samples", n_resamples=np.inf, vectorized=False)
    assert paired_permutation(a, b) == pytest.approx(theirs.pvalue, abs=1e-12)


def test_random_permutation_comes_near_the_exact_binomial() -> None:
    a, b = np.array([1.0] * 16 + [0.0] * 6), np.array([0.0] * 16 + [1.0] * 6)
    assert paired_permutation(a, b, resamples=20_000, seed=1) == pytest.approx(mcnemar(a, b), abs=0.01)
    assert paired_permutation(np.ones(200), np.zeros(200), resamples=999) == pytest.approx(1 / 1000)


@pytest.mark.parametrize(("a", "b", "message"), [([1, 2], [1], "got shapes"), ([], [], "got shapes"), ([1.0, math.nan], [1, 2], "finite")])
def test_permutation_refuses_unpaired_rows(a, b, message) -> None:
    with pytest.raises(EvaluationError, match=message):
        paired_permutation(a, b)


@given(n=st.integers(1, 500), share=st.floats(0, 1), level=st.floats(0.5, 0.999))
def test_wilson_agrees_with_scipy(n, share, level) -> None:
    stats = pytest.importorskip("scipy.stats", reason="scipy (extra `compare`) is the reference")
    successes = round(share * n)
    ours = wilson_interval(successes, n, level=level)
    theirs = stats.binomtest(successes, n).proportion_ci(level, method="wilson")
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=1e-9)
    assert 0 <= ours.low <= successes / n <= ours.high <= 1


def test_wilson_does_not_claim_certainty_from_few_rows() -> None:
    assert wilson_interval(10, 10).low == pytest.approx(0.7225, abs=1e-4)
    with pytest.raises(EvaluationError, match=r"0\.\.10; got 11"):
        wilson_interval(11, 10)


@given(pairs=st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=80))
def test_mcnemar_agrees_with_the_binomial_test(pairs) -> None:
    stats = pytest.importorskip("scipy.stats", reason="scipy (extra `compare`) is the reference")
    a, b = zip(*pairs, strict=True)
    only_a = sum(x and not y for x, y in pairs)
    only_b = sum(y and not x for x, y in pairs)
    expected = stats.binomtest(only_a, only_a + only_b).pvalue if only_a + only_b else 1.0
    assert mcnemar(a, b) == pytest.approx(expected, abs=1e-9)


def test_mcnemar_holds_for_thousands_of_rows() -> None:
    a = np.arange(20_000) % 2 == 0
    assert mcnemar(a, ~a) == 1
    assert 0 <= mcnemar(np.ones(5000), np.zeros(5000)) < 1e-300
