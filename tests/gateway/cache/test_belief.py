import numpy as np
import pytest

from foreword.errors import ConfigError
from foreword.gateway.cache.belief import Belief, Calibration, Logit, Offset


def belief(features: int = 1, *, prior: float = 1.0, entry_prior: float = 1.0) -> Belief:
    return Belief(np.zeros(features), np.ones(features), assumed=0.0, assumed_F=np.zeros(features), prior=prior, entry_prior=entry_prior)


def probability(of: Belief, x: float, offset: Offset | None = None) -> float:
    return of.logits(np.array([[x]]), [offset or of.entry_prior])[0].probability


def taught(true_slope: float, true_intercept: float, count: int = 3_000) -> Belief:
    draws = np.random.default_rng(0)
    found = belief(prior=2.0, entry_prior=0.0)
    for x in draws.normal(size=count):
        same = draws.random() < 1 / (1 + np.exp(-(true_slope * x + true_intercept)))
        found.observe(np.array([x]), found.entry_prior, same=bool(same))
    return found


def test_knows_nothing_at_first() -> None:
    assert probability(belief(), 0.3) == pytest.approx(0.5)


def test_finds_the_curve_that_the_answers_come_from() -> None:
    found = taught(2.0, -1.0)
    for x in (-1.0, 0.0, 0.5, 1.0):
        assert probability(found, x) == pytest.approx(1 / (1 + np.exp(-(2 * x - 1))), abs=0.06)


def test_is_surer_where_it_saw_more() -> None:
    few, many = taught(2.0, -1.0, 50), taught(2.0, -1.0, 2_000)
    offset = Offset(mean=0.0, variance=0.0)
    assert many.logits(np.zeros((1, 1)), [offset])[0].variance < few.logits(np.zeros((1, 1)), [offset])[0].variance


def test_an_uncertain_logit_is_nearer_to_even() -> None:
    assert 0.5 < Logit(mean=2.0, variance=9.0).probability < Logit(mean=2.0, variance=0.1).probability


def test_an_entry_learns_for_itself() -> None:
    found, good, bad = belief(entry_prior=2.0), Offset(mean=0.0, variance=4.0), Offset(mean=0.0, variance=4.0)
    for _ in range(6):
        good = found.observe(np.zeros(1), good, same=True)
        bad = found.observe(np.zeros(1), bad, same=False)
    assert good.mean > 0.5 > -0.5 > bad.mean
    assert good.variance < 4.0
    assert probability(found, 0.0, good) > 0.7 > 0.3 > probability(found, 0.0, bad)


def test_what_was_learnt_can_be_taken_up() -> None:
    found, other = taught(1.0, 0.5, 200), belief(prior=2.0, entry_prior=0.0)
    other.restore(found.state())
    assert probability(other, 0.7) == probability(found, 0.7)
    other.observe(np.zeros(1), other.entry_prior, same=True)
    assert probability(other, 0.7) != probability(found, 0.7), "the state is shared"
    with pytest.raises(ConfigError, match="empty one"):
        belief(features=2).restore(found.state())


def test_features_far_out_are_no_leverage() -> None:
    found = taught(2.0, -1.0)
    assert probability(found, 1e9) == probability(found, 4.0)


def test_a_calibration_learns_what_was_said_too_boldly() -> None:
    draws, calibration = np.random.default_rng(0), Calibration()
    for _ in range(600):
        calibration.observe(0.9, same=bool(draws.random() < 0.6))
    assert calibration.probability(0.9) == pytest.approx(0.6, abs=0.08)


def test_a_calibration_says_of_nothing_that_it_is_certain() -> None:
    assert 0.9 < Calibration().probability(1.0) < 0.99
    assert Calibration().probability(0.0) < 0.01


def test_a_calibration_follows_a_change() -> None:
    calibration = Calibration()
    for _ in range(2_000):
        calibration.observe(0.5, same=True)
    before = calibration.probability(0.5)
    for _ in range(300):
        calibration.observe(0.5, same=False)
    assert calibration.probability(0.5) < before - 0.2
    other = Calibration()
    other.restore(calibration.state())
    assert other.probability(0.5) == calibration.probability(0.5)
