"""Intervals in closed form: against values from the literature, and against the ones that evaluation uses."""

from __future__ import annotations

import random

import pytest

from foreword.evaluate.statistics import wilson_interval
from foreword.prompting.intervals import difference, share


@pytest.mark.parametrize(("successes", "rows"), [(0, 10), (10, 10), (3, 10), (250, 1000), (1, 1)])
def test_a_share_has_wilson_s_interval(successes: int, rows: int):
    found = share([True] * successes + [False] * (rows - successes))
    wanted = wilson_interval(successes, rows)
    assert (found.low, found.high) == pytest.approx((wanted.low, wanted.high)) and found.share == successes / rows


def test_the_difference_of_matched_shares():
    # Agresti 2002, "Categorical Data Analysis", Table 10.1: 1,600 people asked twice whether they approve of a prime minister. The plain
    # Wald interval there is (-0.06, -0.02); with so many people half an observation hardly moves it.
    before = [True] * 794 + [True] * 150 + [False] * 86 + [False] * 570
    after = [True] * 794 + [False] * 150 + [True] * 86 + [False] * 570
    found = difference(after, before)
    assert found.difference == pytest.approx(-0.04)
    assert (found.low, found.high) == pytest.approx((-0.059, -0.021), abs=1e-3)


def test_no_difference_is_not_certain():
    found = difference([True, False] * 5, [True, False] * 5)
    assert found.difference == 0 and found.low < 0 < found.high
    assert found.low == pytest.approx(-found.high)


def test_it_covers_the_truth_about_as_often_as_it_says():
    draw, hits = random.Random(0), 0
    for _ in range(400):
        before = [draw.random() < 0.5 for _ in range(60)]
        after = [old if draw.random() < 0.6 else draw.random() < 0.75 for old in before]
        found = difference(after, before)
        hits += found.low <= 0.4 * 0.25 <= found.high
    assert hits / 400 > 0.92
