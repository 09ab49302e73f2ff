"""Hours, days, weeks and months of a budget, all of them in UTC; a week begins on Monday."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Literal

Period = Literal["hour", "day", "week", "month"]


def period_start(period: Period, at: datetime) -> datetime:
    """When the period that a moment lies in began."""
    at = at.astimezone(UTC)
    hour = at.replace(minute=0, second=0, microsecond=0)
    day = hour.replace(hour=0)
    if period == "hour":
        return hour
    if period == "day":
        return day
    return day - timedelta(days=day.weekday()) if period == "week" else day.replace(day=1)


def period_end(period: Period, at: datetime) -> datetime:
    """When the period that a moment lies in ends, and the next one begins."""
    start = period_start(period, at)
    if period == "month":
        return (start + timedelta(days=32)).replace(day=1)
    return start + {"hour": timedelta(hours=1), "day": timedelta(days=1), "week": timedelta(weeks=1)}[period]
