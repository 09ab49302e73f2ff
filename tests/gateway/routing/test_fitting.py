from __future__ import annotations

import numpy as np
import pytest

from foreword.errors import ConfigError, DataError
from foreword.gateway.routing.fitting import Features, choices, dearness, fit, held_out_rows
from foreword.gateway.routing.table import Table
from routed_questions import table
from word_vectors import WordVectors

EMBEDDER = WordVectors()


def with_success(given: Table, success_NK: np.ndarray) -> Table:
    return Table(tiers=given.tiers, questions=given.questions, groups=given.groups, success_NK=success_NK, cost_NK=given.cost_NK)


def test_it_learns_what_can_be_learned():
    fitted = fit(table(), EMBEDDER)
    assert fitted.log_loss < 0.8 * fitted.log_loss_of_means
    assert fitted.router.header.reference == "strong"
    assert fitted.rows == int((~held_out_rows(table(), 0.25)).sum())


def test_nothing_is_learned_from_what_is_held_out():
    given = table()
    out_N = held_out_rows(given, 0.5)
    assert 0.4 < out_N.mean() < 0.6
    # Whatever is written into the rows that are held out, the router stays what it is.
    altered = with_success(given, np.where(out_N[:, None], 1 - given.success_NK, given.success_NK))
    one, other = (fit(rows, EMBEDDER, held_out=0.5).router for rows in (given, altered))
    np.testing.assert_array_equal(one.weights_KD, other.weights_KD)
    assert one.header == other.header


def test_fitting_twice_gives_the_same():
    one, other = (fit(table(), EMBEDDER).router for _ in range(2))
    np.testing.assert_array_equal(one.weights_KM, other.weights_KM)
    assert one.header == other.header


def test_the_share_to_keep_decides_how_frugal_it_is():
    given = table(noise=0.2)
    frugality = [fit(given, EMBEDDER, keep=keep).router.header.frugality for keep in (0.99, 0.9, 0.5)]
    assert frugality == sorted(frugality)
    assert frugality[0] < frugality[-1]


def test_more_confidence_is_less_frugal():
    given = table(noise=0.2)
    sure, unsure = (fit(given, EMBEDDER, confidence=confidence).router.header.frugality for confidence in (0.99, 0.5))
    assert sure <= unsure


def test_what_is_kept_on_new_questions():
    router = fit(table(1000), EMBEDDER, keep=0.9).router
    later = table(1000, seed=1)
    features = Features.of(later, EMBEDDER)
    expected_NK = np.stack(
        [router.probabilities(text, vector_D) for text, vector_D in zip(later.questions, features.vectors_ND, strict=True)]
    )
    own_L = np.array([router.header.frugality])
    (chosen_N,) = choices(expected_NK, dearness(router, features.lengths_N), own_L)
    kept = later.success_NK[np.arange(1000), chosen_N].mean() / later.success_NK[:, 1].mean()
    assert kept > 0.88
    assert (chosen_N == 0).mean() > 0.3


def test_a_share_that_cannot_be_kept_is_told():
    # The cheap model is a little better, and neither says when the other is right.
    given = table(300, noise=0.0)
    coin_NK = np.random.default_rng(5).random((300, 2)) < (0.52, 0.5)
    assert not fit(with_success(given, coin_NK.astype(np.float64)), EMBEDDER, keep=1.0, confidence=0.99, held_out=0.0).keeps
    assert fit(table(), EMBEDDER).keeps


def test_unknown_successes_are_passed_over():
    given = table()
    success_NK = given.success_NK.copy()
    success_NK[::3, 0] = np.nan
    fitted = fit(with_success(given, success_NK), EMBEDDER)
    assert np.isfinite(fitted.router.weights_KD).all()
    assert fitted.log_loss < 0.9 * fitted.log_loss_of_means


def test_costs_that_grow_with_the_question_are_learned():
    given = table()
    lengths_N = np.array([len(text) for text in given.questions], dtype=np.float64)
    cost_NK = np.stack([lengths_N, 5 + 10 * lengths_N], axis=1)
    long = Table(tiers=given.tiers, questions=given.questions, groups=given.groups, success_NK=given.success_NK, cost_NK=cost_NK)
    np.testing.assert_allclose(fit(long, EMBEDDER).router.costs(200), [200, 2005], rtol=1e-6)


def test_a_tier_that_is_always_right_is_no_trouble():
    given = table()
    router = fit(with_success(given, np.stack([given.success_NK[:, 0], np.ones(len(given))], axis=1)), EMBEDDER).router
    assert np.isfinite(router.bias_K).all()


@pytest.mark.parametrize(
    ("options", "told"),
    [({"keep": 0.0}, "keep"), ({"keep": 1.1}, "keep"), ({"confidence": 0.4}, "confidence"), ({"held_out": 1.0}, "held_out")],
)
def test_shares_that_are_none(options: dict[str, float], told: str):
    with pytest.raises(ConfigError, match=told):
        fit(table(), EMBEDDER, **options)


def test_too_little_to_learn_from():
    with pytest.raises(DataError, match="40 rows to learn from"):
        fit(table(40), EMBEDDER, held_out=0.0)
    given = table(200)
    unknown_NK = given.success_NK.copy()
    unknown_NK[20:, 0] = np.nan
    with pytest.raises(DataError, match="`small` has"):
        fit(with_success(given, unknown_NK), EMBEDDER, held_out=0.0)
    with pytest.raises(DataError, match="costs nothing"):
        fit(table(costs=(0.0, 1.0)), EMBEDDER)
