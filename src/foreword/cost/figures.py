"""The report as plain figures, for JSON, for CSV and for the admin route. Money is text, exact to the last digit."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from foreword.cost.report import CostRow, StageRow, cost_report, stage_rows
from foreword.errors import ConfigError
from foreword.store.database import Database

_AGO = re.compile(r"([0-9]{1,6})([hdw])")
_UNITS = {"h": "hours", "d": "days", "w": "weeks"}


def figures(
    database: Database,
    by: str = "task-type",
    *,
    stages: bool = False,
    since: str | None = None,
    until: str | None = None,
    tenant: str | None = None,
) -> list[dict[str, Any]]:
    """The rows of a report.

    Args:
        by: names of dimensions, between commas; `stage`, which stands alone, is the same as `stages`.
        stages: what each stage cost with each model, instead.
        since, until: see `moment`.

    Raises:
        ConfigError: a dimension, or a time, is none.
        StoreError: the database cannot be read.
    """
    period = {"since": moment(since), "until": moment(until), "tenant": tenant}
    names = tuple(dict.fromkeys(name.strip() for name in by.split(",") if name.strip()))
    if stages or names == ("stage",):
        return [_stage(row) for row in stage_rows(database, **period)]
    return [_row(names, row) for row in cost_report(database, names, **period)]  # type: ignore[arg-type]


def moment(text: str | None) -> datetime | None:
    """A date, a time, or how long ago: `2026-11-20`, `24h`, `7d`, `4w`. A time without a zone is UTC's. Raises `ConfigError`."""
    if text is None:
        return None
    ago = _AGO.fullmatch(text)
    try:
        if ago is not None:
            return datetime.now(UTC) - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
        at = datetime.fromisoformat(text)
    except (ValueError, OverflowError):
        raise ConfigError(f"`{text[:40]}` is no time. Write a date such as 2026-11-20, or how long ago: 24h, 7d, 4w.") from None
    return at if at.tzinfo is not None else at.replace(tzinfo=UTC)


def written(amount: Decimal | None) -> str | None:
    """Money as text; None where it is unknown."""
    return None if amount is None else format(amount, "f")


def _row(names: Sequence[str], row: CostRow) -> dict[str, Any]:
    return {
        **dict(zip(names, row.group, strict=True)),
        "requests": row.requests,
        "judged": row.judged,
        "success_rate": row.success_rate,
        "cost": written(row.cost),
        "cost_per_success": written(row.cost_per_success),
        "cost_per_attempt": written(row.cost_per_attempt),
        "currency": row.currency,
        "unpriced": row.unpriced,
        "cache_hit_rate": row.cache_hit_rate,
        "escalation_rate": row.escalation_rate,
        "retries": row.retries,
        "fallbacks": row.fallbacks,
        "saved": {lever: written(amount) for lever, amount in row.saved.items()},
    }


def _stage(row: StageRow) -> dict[str, Any]:
    return {
        "stage": row.stage,
        "model": row.model,
        "cost": written(row.cost),
        "cost_per_success": written(row.cost_per_success),
        "cost_per_attempt": written(row.cost_per_attempt),
        "currency": row.currency,
        "unpriced": row.unpriced,
    }
