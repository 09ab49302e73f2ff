"""When a vote is over; the closed forms against scipy's integrals and against counting."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foreword.errors import ConfigError
from foreword.prompting.voting import SILENT, Ballots, Stopping, cannot_turn, is_settled, leads, stays_ahead

votes = st.integers(min_value=0, max_value=60)


def ballots(*answers: str) -> Ballots:
    cast = Ballots()
    for answer in answers:
        cast.add(answer)
    return cast


def test_answers_that_mean_the_same_count_together() -> None:
    cast = ballots("(B).", "$1,200.00", "1200", "(b)", "1200.")
    assert cast.counts == {"1200": 3, "(b)": 2}
    assert cast.leader == "1200"
    assert cast.answers == ("(B).", "$1,200.00"), "as they came up"
    assert cast.first_two == (3, 2)


def test_of_equal_counts_the_first_is_ahead() -> None:
    assert ballots("b", "a", "a", "b").answers == ("b", "a")
    assert ballots("b", "a", "a", "b").leader == "b"


def test_no_votes() -> None:
    assert ballots().leader is None and ballots().first_two == (0, 0)
    assert not is_settled(ballots(), left=3, confidence=0.6)
    assert is_settled(ballots(), left=0, confidence=0.6)


@settings(deadline=None)
@given(votes, votes)
def test_beta_tail_is_the_integral(first: int, second: int) -> None:
    stats = pytest.importorskip("scipy.stats")
    assert leads(first, second) == pytest.approx(stats.beta.sf(0.5, first + 1, second + 1), rel=1e-9, abs=1e-12)


@settings(deadline=None)
@given(votes, votes, st.integers(min_value=0, max_value=80))
def test_rest_of_the_vote_is_beta_binomial(first: int, second: int, left: int) -> None:
    stats = pytest.importorskip("scipy.stats")
    behind = math.floor((second + left - first) / 2)
    wanted = 1.0 if behind < 0 else stats.betabinom.sf(behind, left, first + 1, second + 1)
    assert stays_ahead(first, second, left) == pytest.approx(wanted, rel=1e-9, abs=1e-11)


def test_the_rest_of_an_endless_vote_is_the_long_run() -> None:
    assert stays_ahead(5, 2, 20_000) == pytest.approx(leads(5, 2), abs=2e-4)


@settings(deadline=None)
@given(votes, votes, st.integers(min_value=0, max_value=12))
def test_cannot_turn_is_what_counting_says(first: int, second: int, left: int) -> None:
    turned = any(second + gained >= first + left - gained for gained in range(left + 1))
    assert cannot_turn(first, second, left) is not turned
    if not turned:
        assert stays_ahead(first, second, left) == pytest.approx(1.0)


def test_known_points() -> None:
    # Four votes and none against are the first that the published threshold takes: 31/32.
    assert leads(3, 0) == 15 / 16
    assert leads(4, 0) == 31 / 32
    assert not is_settled(ballots(*"aaa"), left=36, confidence=0.95, rule="beta")
    assert is_settled(ballots(*"aaaa"), left=36, confidence=0.95, rule="beta")


@pytest.mark.parametrize("rule", ["beta", "remaining"])
def test_confidence_of_one_waits_for_certainty(rule) -> None:
    assert not is_settled(ballots(*"a" * 20), left=20, confidence=1.0, rule=rule)
    assert is_settled(ballots(*"a" * 21), left=19, confidence=1.0, rule=rule)


def test_near_the_end_less_is_needed() -> None:
    """Two ahead with two left is not certain, yet all but; in the long run it would be open."""
    cast = ballots(*"aaaaaaabbbbb")
    assert is_settled(cast, left=2, confidence=0.7, rule="remaining")
    assert not is_settled(cast, left=2, confidence=0.9, rule="beta")


@settings(deadline=None)
@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=9))
def test_a_vote_settled_for_certain_never_turns(answers: list[str]) -> None:
    left = 3
    cast = ballots(*answers)
    if is_settled(cast, left=left, confidence=1.0):
        for rest in itertools.product("abcd", repeat=left):
            assert ballots(*answers, *rest).leader == cast.leader


@pytest.mark.parametrize("arguments", [(-1, 0, 3), (1, -2, 3), (1, 0, -1)])
def test_negative_counts_are_refused(arguments: tuple[int, int, int]) -> None:
    with pytest.raises(ConfigError, match="counted from 0"):
        stays_ahead(*arguments)


# How many to draw


def drawn_of(stopping: Stopping, answers: str) -> int:
    """Samples drawn of recorded ones; `-` is no vote, and the last one is repeated."""
    cast, drawn = Ballots(), 0
    while count := stopping.next_count(cast, drawn):
        assert drawn + count <= stopping.n
        for place in range(drawn, drawn + count):
            answer = answers[min(place, len(answers) - 1)]
            if answer != "-":
                cast.add(answer)
        drawn += count
    return drawn


def test_all_are_drawn_at_once_where_nothing_stops_it() -> None:
    stopping = Stopping(n=40, adaptive=False)
    assert stopping.next_count(ballots(), 0) == 40 and stopping.next_count(ballots(*"a" * 39), 39) == 1
    assert drawn_of(stopping, "a") == 40


@pytest.mark.parametrize(
    ("stopping", "answers", "drawn"),
    [
        (Stopping(n=40, batch=1, rule="beta"), "a", 4),
        (Stopping(n=40, batch=3, rule="beta"), "a", 6),
        (Stopping(n=40, batch=4, least=10), "a", 10),
        (Stopping(n=2, batch=4, least=10), "a", 2),
        (Stopping(n=9, batch=1, confidence=1), "a", 5),
        (Stopping(n=40, batch=1), "-", SILENT),
        (Stopping(n=40, batch=1, least=20), "-", 20),
        (Stopping(n=40, batch=1, confidence=1), "ab" * 40, 40),
    ],
)
def test_where_samples_end(stopping: Stopping, answers: str, drawn: int) -> None:
    assert drawn_of(stopping, answers) == drawn


@settings(deadline=None)
@given(st.text(alphabet="ab-", min_size=1, max_size=45), st.integers(1, 40), st.integers(1, 9), st.integers(1, 9), st.floats(0.55, 1))
def test_any_vote_ends_in_time(answers: str, n: int, least: int, batch: int, confidence: float) -> None:
    drawn = drawn_of(Stopping(n=n, least=least, batch=batch, confidence=confidence), answers)
    assert min(least, n) <= drawn <= n
