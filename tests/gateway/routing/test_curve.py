from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from foreword.errors import DataError
from foreword.gateway.routing.curve import Evaluation, evaluate
from foreword.gateway.routing.fitting import Features, fit
from foreword.gateway.routing.router import Router
from foreword.gateway.routing.table import Table
from routed_questions import table
from word_vectors import WordVectors

EMBEDDER = WordVectors()
LATER = table(600, seed=1)


@pytest.fixture(scope="module")
def router() -> Router:
    return fit(table(600), EMBEDDER).router


def judged(router: Router, rows: Table, **options) -> Evaluation:
    return evaluate(router, rows, Features.of(rows, EMBEDDER), resamples=50, **options)


def altered(rows: Table, **fields) -> Table:
    return dataclasses.replace(rows, **fields)


def test_a_good_router_is_above_chance(router: Router):
    found = judged(router, LATER)
    assert found.reference == "strong"
    assert found.area is not None and found.area.low > 0.6
    assert found.random.area == pytest.approx(0.5, abs=0.01)
    # Half of the questions are easy, and the small model's price is a twentieth.
    assert 0.35 < found.saving.value < 0.6
    assert found.saving.low <= found.saving.value <= found.saving.high
    assert found.mixed.saving < 0.2
    assert found.single == "strong" and found.single_saving == 0
    assert sum(found.asked.values()) == pytest.approx(1)
    assert found.rows == 600 and found.left_out == 0


def test_the_curve_goes_from_the_strong_model_to_the_cheap_one(router: Router):
    found = judged(router, LATER)
    first, last = found.curve[0], found.curve[-1]
    assert last == pytest.approx((1.0, found.accuracy["small"]))
    assert first[1] >= 0.95 * found.accuracy["strong"]


def test_a_router_that_knows_nothing_is_no_better_than_chance(router: Router):
    shuffled = altered(LATER, success_NK=LATER.success_NK[np.random.default_rng(0).permutation(len(LATER))])
    found = judged(router, shuffled)
    assert found.area is not None and abs(found.area.value - 0.5) < 0.1
    assert found.saving.value < found.mixed.saving + 0.1


def test_an_oracle_bounds_the_saving(router: Router):
    """No router can ask the small model more often than it is right, beyond what may be lost."""
    found = judged(router, LATER)
    right_small, right_strong = LATER.success_NK[:, 0], LATER.success_NK[:, 1].mean()
    most = right_small.mean() + 0.05 * right_strong + 0.05
    assert found.saving.value <= 0.95 * most


def test_where_the_cheap_model_is_enough_nothing_is_learned(router: Router):
    found = judged(router, altered(LATER, success_NK=np.ones_like(LATER.success_NK)))
    assert found.single == "small"
    assert found.single_saving == pytest.approx(0.95)
    assert found.area is None


def test_where_the_reference_is_the_cheapest_there_is_nothing_to_spare(router: Router):
    found = judged(router, altered(LATER, cost_NK=LATER.cost_NK[:, ::-1]))
    assert found.saving.value == 0
    assert found.area is None and found.random.area is None


def test_rows_of_which_something_is_unknown_are_left_out(router: Router):
    success_NK = LATER.success_NK.copy()
    success_NK[:100, 1] = np.nan
    found = judged(router, altered(LATER, success_NK=success_NK))
    assert (found.rows, found.left_out) == (500, 100)


def test_rows_of_a_group_are_drawn_together(router: Router):
    wide = judged(router, altered(LATER, groups=tuple(str(number // 20) for number in range(len(LATER)))))
    narrow = judged(router, LATER)
    assert wide.saving.value == narrow.saving.value
    assert (wide.chosen_kept.low, wide.chosen_kept.high) != (narrow.chosen_kept.low, narrow.chosen_kept.high)


def test_a_lower_share_spares_more(router: Router):
    half, most = (judged(router, LATER, keep=keep).saving.value for keep in (0.6, 0.97))
    assert half > most


def test_nothing_to_judge_on(router: Router):
    with pytest.raises(DataError, match="No row"):
        judged(router, altered(LATER, success_NK=np.full_like(LATER.success_NK, np.nan)))
    with pytest.raises(DataError, match="the table is of"):
        judged(router, altered(LATER, tiers=("strong", "small")))
