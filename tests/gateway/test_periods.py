"""Where periods begin and end."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foreword.gateway.periods import Period, period_end, period_start

PERIODS: tuple[Period, ...] = ("hour", "day", "week", "month")


@pytest.mark.parametrize(
    ("period", "start", "end"),
    [
        ("hour", "2027-12-31T23:00", "2028-01-01T00:00"),
        ("day", "2027-12-31T00:00", "2028-01-01T00:00"),
        ("week", "2027-12-27T00:00", "2028-01-03T00:00"),
        ("month", "2027-12-01T00:00", "2028-01-01T00:00"),
    ],
)
def test_a_year_ends(period: Period, start: str, end: str) -> None:
    at = datetime(2027, 12, 31, 23, 59, 59, tzinfo=UTC)
    assert period_start(period, at) == datetime.fromisoformat(start).replace(tzinfo=UTC)
    assert period_end(period, at) == datetime.fromisoformat(end).replace(tzinfo=UTC)


def test_february_of_a_leap_year_has_29_days() -> None:
    at = datetime(2028, 2, 29, 12, tzinfo=UTC)
    assert (period_start("month", at), period_end("month", at)) == (datetime(2028, 2, 1, tzinfo=UTC), datetime(2028, 3, 1, tzinfo=UTC))


def test_a_day_is_one_of_utc_wherever_the_clock_stands() -> None:
    at = datetime(2027, 5, 1, 1, tzinfo=timezone(timedelta(hours=5)))
    assert period_start("day", at) == datetime(2027, 4, 30, tzinfo=UTC)


@given(st.datetimes(min_value=datetime(2000, 1, 1), max_value=datetime(2100, 1, 1)), st.sampled_from(PERIODS))
def test_every_moment_lies_in_one_period(naive: datetime, period: Period) -> None:
    at = naive.replace(tzinfo=UTC)
    start, end = period_start(period, at), period_end(period, at)
    assert start <= at < end
    assert period_start(period, start) == start
    assert period_start(period, end) == end
    assert period_end(period, end - timedelta(microseconds=1)) == end
