"""Successive halving as bookkeeping."""

from __future__ import annotations

import math

from hypothesis import given, settings
from hypothesis import strategies as st

from foreword.tuning.search import Candidate, SearchState, probe_steps, steps_in_all

SIZES = st.integers(1, 9)
LOSSES = st.one_of(st.floats(0.0, 5.0), st.just(math.inf))


def play(search: SearchState, losses) -> list[tuple[int, int, int]]:
    """Runs a search to its end; (candidate, from, to) of each segment."""
    segments = []
    while (segment := search.next_segment()) is not None:
        number, until = segment
        segments.append((number, search.progress[number].step, until))
        search.record(number, until, losses())
        assert len(segments) < 5000
    return segments


@settings(deadline=None, max_examples=150)
@given(st.data(), SIZES, st.integers(1, 12), st.integers(1, 12), st.integers(1, 60))
def test_a_search_ends_within_its_plan(data, candidates, rung, interval, total):
    search = SearchState.begin(candidates, rung=rung, interval=interval, total=total)
    segments = play(search, lambda: data.draw(LOSSES))
    taken = sum(until - before for _, before, until in segments)
    assert taken <= steps_in_all(candidates, rung=search.rung, total=total)
    assert all(before < until <= total for _, before, until in segments)
    winner = search.winner()
    assert search.progress[winner].alive and search.progress[winner].step == total
    for number in range(candidates):
        reached = [until for other, _, until in segments if other == number]
        assert reached == sorted(set(reached)) and search.progress[number].step == reached[-1]


@settings(deadline=None, max_examples=150)
@given(SIZES, st.integers(1, 12), st.integers(1, 60))
def test_the_steps_promised_are_those_taken(candidates, rung, total):
    losses = iter(range(10_000))
    search = SearchState.begin(candidates, rung=rung, interval=3, total=total)
    segments = play(search, lambda: float(next(losses)))
    assert sum(until - before for _, before, until in segments) == steps_in_all(candidates, rung=search.rung, total=total)


def test_the_worse_half_is_dropped_and_the_best_goes_on():
    search = SearchState.begin(4, rung=2, interval=3, total=10)
    loss = {0: 3.0, 1: 1.0, 2: 2.0, 3: 4.0}
    order = [search.next_segment()]
    for _ in range(4):
        number, until = search.next_segment()
        search.record(number, until, loss[number])
    assert search.alive() == [1, 2] and not search.final
    for number in (1, 2):
        assert search.next_segment() == (number, 4)
        search.record(number, 4, 5.0 - loss[number])  # now 2 is ahead
    assert search.alive() == [2] and search.final and order == [(0, 2)]
    assert [segment for segment in play(search, lambda: 1.0)] == [(2, 4, 7), (2, 7, 10)]
    assert search.winner() == 2


def test_the_winner_is_alone_after_as_many_probe_steps_as_promised():
    for candidates in range(1, 10):
        search = SearchState.begin(candidates, rung=3, interval=5, total=100)
        while not search.final:
            number, until = search.next_segment()
            search.record(number, until, float(number))
        assert search.progress[search.winner()].step == probe_steps(candidates, rung=3)


def test_candidates_that_failed_do_not_survive_beside_sound_ones():
    search = SearchState.begin(4, rung=1, interval=1, total=9)
    for number, loss in enumerate((math.inf, math.inf, 7.0, math.inf)):
        search.record(number, 1, loss)
    assert search.alive() == [2] and search.final


def test_one_is_left_when_all_fail():
    search = SearchState.begin(3, rung=1, interval=1, total=9)
    for number in range(3):
        search.record(number, 1, math.inf)
    assert len(search.alive()) == 1 and search.final


def test_a_search_survives_json():
    search = SearchState.begin(3, rung=2, interval=2, total=8)
    for number, loss in enumerate((1.0, math.inf, 2.0)):
        search.record(number, 2, loss)
    again = SearchState.model_validate(search.model_dump(mode="json"))
    assert again == search and again.next_segment() == search.next_segment()


def test_patience():
    def stalled(*losses: float, patience: int) -> bool:
        search = SearchState.begin(1, rung=1, interval=1, total=50)
        for step, loss in enumerate(losses, start=1):
            search.record(0, step, loss)
        return search.stalled(patience)

    assert not stalled(3.0, 2.0, 1.0, patience=1)
    assert stalled(3.0, 2.0, 2.5, patience=1)
    assert not stalled(3.0, 2.0, 2.5, patience=2)
    assert stalled(3.0, 2.0, 2.5, 2.1, patience=2)
    assert not stalled(3.0, 2.0, 2.5, 1.9, patience=2)
    assert stalled(2.0, 2.0, 2.0, patience=2)  # standing still is no improvement
    assert not stalled(1.0, 2.0, 3.0, patience=0)


def test_only_a_winner_can_stall():
    search = SearchState.begin(2, rung=1, interval=1, total=9)
    search.record(0, 1, 1.0)
    assert not search.stalled(1)


def test_a_candidate_says_what_it_is():
    assert str(Candidate(initialisation="few-shot:4", learning_rate=0.05)) == "few-shot:4, rate 0.05"
    assert str(Candidate(initialisation="random", learning_rate=0.02, positions=8, draw=1)) == "random (draw 2), rate 0.02, 8 positions"
