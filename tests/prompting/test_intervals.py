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
    # Agresti & Min 2005, Table I: 1,144 people; 87 changed one way, 76 the other... in their form with half an observation added.
    before = [True] * 87 + [False] * 76 + [True] * 500 + [False] * 481
    after = [False] * 87 + [True] * 76 + [True] * 500 + [False] * 481
    found = difference(after, before)
    assert found.difference == pytest.approx(-11 / 1144)
    assert (found.low, found.high) == pytest.approx((-0.0314, 0.0122), abs=2e-3)


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
