"""A circuit opens after failures in a row, and one call at a time finds out whether it may close."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import pytest

from foreword.gateway.breaker import Breaker


@dataclass
class Clock:
    now: float = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def breaker(clock: Clock) -> Breaker:
    return Breaker("big", failures=3, seconds=10.0, now=clock)


def fail(breaker: Breaker, times: int) -> None:
    for _ in range(times):
        breaker.failed(breaker.way())


def test_it_stays_closed_until_so_many_failures_in_a_row(breaker: Breaker) -> None:
    fail(breaker, 2)
    breaker.succeeded()
    fail(breaker, 2)
    assert breaker.way() == "closed"
    assert breaker.is_closed
    assert breaker.opens_in == 0.0
    breaker.failed("closed")
    assert breaker.way() == "open"
    assert not breaker.is_closed


def test_it_says_how_long_it_stays_open(breaker: Breaker, clock: Clock) -> None:
    fail(breaker, 3)
    clock.now += 4
    assert breaker.opens_in == pytest.approx(6.0)
    assert breaker.is_open


def test_one_call_at_a_time_tries_it_again(breaker: Breaker, clock: Clock) -> None:
    fail(breaker, 3)
    clock.now += 10
    assert breaker.way() == "probe"
    assert breaker.way() == "open"
    breaker.succeeded()
    assert [breaker.way(), breaker.way()] == ["closed", "closed"]


def test_a_probe_that_fails_opens_it_for_the_whole_time_again(breaker: Breaker, clock: Clock) -> None:
    fail(breaker, 3)
    clock.now += 10
    breaker.failed(breaker.way())
    clock.now += 9
    assert breaker.way() == "open"
    clock.now += 1
    assert breaker.way() == "probe"


def test_a_probe_that_nobody_waited_for_leaves_the_question_open(breaker: Breaker, clock: Clock) -> None:
    fail(breaker, 3)
    clock.now += 10
    breaker.gave_up(breaker.way())
    assert breaker.way() == "probe"


def test_a_call_from_before_does_not_keep_it_open_for_longer(breaker: Breaker, clock: Clock) -> None:
    fail(breaker, 3)
    clock.now += 9
    breaker.failed("closed")
    clock.now += 1
    assert breaker.way() == "probe"


def test_a_call_from_before_does_not_end_another_calls_probe(breaker: Breaker, clock: Clock) -> None:
    fail(breaker, 3)
    clock.now += 10
    assert breaker.way() == "probe"
    breaker.gave_up("closed")
    breaker.failed("closed")
    assert breaker.way() == "open"


def test_opening_and_closing_are_logged(breaker: Breaker, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        fail(breaker, 3)
        breaker.succeeded()
    assert ["big failed 3 times" in caplog.messages[0], "answers again" in caplog.messages[1]] == [True, True]
