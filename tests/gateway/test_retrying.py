"""What is worth another try, when, and how often."""

from __future__ import annotations

import random

import pytest

from foreword.gateway.passage import TargetError
from foreword.gateway.retrying import FIRST_SECONDS, MOST_SECONDS, RetryBudget, passes, wait


def error(status: str = "unavailable", **fields: object) -> TargetError:
    return TargetError("It failed.", status=status, **fields)  # type: ignore[arg-type]


def waits(failure: TargetError, *, tried: int = 1, left: float = 60.0, stands_by: bool = False) -> list[float | None]:
    draw = random.Random(7)
    return [wait(failure, tried=tried, left=left, stands_by=stands_by, draw=draw) for _ in range(200)]


@pytest.mark.parametrize("status", [408, 409, 429, 500, 502, 503, 504, 529])
def test_what_passes_is_tried_again(status: int) -> None:
    assert passes(error(http_status=status))


@pytest.mark.parametrize("status", [301, 307, 401, 403, 405, 501])
def test_what_does_not_pass_is_not(status: int) -> None:
    assert not passes(error(http_status=status))


def test_a_connection_that_was_refused_or_an_answer_that_is_none_is_tried_again() -> None:
    assert passes(error())
    assert passes(error("broken", http_status=200))


@pytest.mark.parametrize(
    "failure",
    [
        error("refused", http_status=400, refusal=b"No."),
        error("broken", http_status=200, begun=True),
        error("cancelled"),
        error("open-circuit", retry_after=1.0),
    ],
)
def test_what_is_final_is_not(failure: TargetError) -> None:
    assert waits(failure)[0] is None


def test_waits_are_drawn_from_the_whole_of_an_interval_that_doubles() -> None:
    for tried, most in ((1, FIRST_SECONDS), (2, 2 * FIRST_SECONDS), (3, 4 * FIRST_SECONDS), (20, MOST_SECONDS)):
        drawn = [seconds for seconds in waits(error(), tried=tried) if seconds is not None]
        assert len(drawn) == 200
        assert 0 <= min(drawn) < most / 10
        assert most * 0.9 < max(drawn) <= most


def test_a_wait_that_the_model_asks_for_is_kept() -> None:
    drawn = waits(error(http_status=429, retry_after=3.0))
    assert all(seconds is not None and 3.0 <= seconds <= 3.3 for seconds in drawn)
    assert set(waits(error(http_status=429, retry_after=0.0))) == {0.0}


def test_a_wait_that_does_not_fit_the_deadline_is_none() -> None:
    assert waits(error(http_status=429, retry_after=3.0), left=2.0) == [None] * 200
    assert waits(error(), left=0.0) == [None] * 200


def test_a_long_wait_is_none_where_another_model_stands_by() -> None:
    assert waits(error(http_status=429, retry_after=30.0), stands_by=True) == [None] * 200
    assert None not in waits(error(http_status=429, retry_after=1.0), stands_by=True)


def test_a_budget_is_a_share_of_the_calls_in_the_long_run() -> None:
    budget = RetryBudget(0.25)
    taken = 0
    for _ in range(1000):
        budget.called()
        taken += budget.take()
    assert taken == pytest.approx(250 + 10, abs=1)


def test_a_full_budget_holds_ten_retries() -> None:
    budget = RetryBudget(0.5)
    for _ in range(1000):
        budget.called()
    assert [budget.take() for _ in range(11)] == [True] * 10 + [False]


def test_a_budget_of_nothing_allows_none() -> None:
    budget = RetryBudget(0.0)
    budget.called()
    assert not budget.take()
