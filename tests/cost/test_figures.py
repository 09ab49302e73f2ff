"""The report as plain figures."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from foreword.cost.figures import figures, moment
from foreword.cost.ledger import Entry, Ledger, Line, Saving
from foreword.cost.rates import Charge
from foreword.errors import ConfigError
from foreword.store.database import Database, open_database

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)


def line(amount: str, stage: str = "infer", model: str = "small") -> Line:
    return Line(stage=stage, model=model, charges=(Charge(meter="request", quantity=Decimal(1), rate=Decimal(amount)),), priced_by="own")


def entry(id: str, *lines: Line, **fields: Any) -> Entry:
    told = {
        "at": NOW,
        "tenant": "acme",
        "task_type": "support",
        "asked_model": "auto",
        "model": "small",
        "status": "answered",
        "seconds": 0.1,
    }
    return Entry(id=id, lines=lines, **(told | fields))


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    ledger = Ledger(open_database(tmp_path / "ledger.sqlite"))
    ledger.record(entry("a", line("0.003"), line("0.001", "check", "judge"), success=True, cache="miss"))
    ledger.record(entry("b", line("0.003"), line("0.01", model="big"), success=False, escalated=True, retries=2, cache="miss"))
    ledger.record(entry("c", success=True, cache="exact", savings=(Saving(lever="cache", amount=Decimal("0.003")),)))
    ledger.record(entry("d", line("0.5"), task_type="other", tenant="zeta", at=NOW - timedelta(days=30)))
    ledger.flush()
    yield ledger.database
    ledger.close()


def test_success_and_attempt_are_told_beside_each_other(database: Database) -> None:
    other, support = figures(database)
    assert support == {
        "task-type": "support",
        "requests": 3,
        "judged": 3,
        "success_rate": pytest.approx(2 / 3),
        "cost": "0.017000000000",
        "cost_per_success": "0.008500000000",
        "cost_per_attempt": support["cost_per_attempt"],
        "currency": "USD",
        "unpriced": 0,
        "cache_hit_rate": pytest.approx(1 / 3),
        "escalation_rate": pytest.approx(1 / 3),
        "retries": 2,
        "fallbacks": 0,
        "saved": {"cache": "0.003000000000"},
    }
    assert Decimal(support["cost_per_attempt"]) * 3 == pytest.approx(Decimal("0.017"))
    # Nobody judged it, so nothing is known of what a success costs.
    assert (other["task-type"], other["success_rate"], other["cost_per_success"]) == ("other", None, None)
    json.dumps([other, support])


def test_the_stages_add_up_to_the_whole(database: Database) -> None:
    rows = figures(database, "stage", tenant="acme")
    assert rows == figures(database, stages=True, tenant="acme")
    assert {(row["stage"], row["model"]): Decimal(row["cost"]) for row in rows} == {
        ("check", "judge"): Decimal("0.001"),
        ("infer", "big"): Decimal("0.01"),
        ("infer", "small"): Decimal("0.006"),
    }
    (whole,) = figures(database, "", tenant="acme")
    for name in ("cost", "cost_per_success", "cost_per_attempt"):
        assert sum(Decimal(row[name]) for row in rows) == pytest.approx(Decimal(whole[name]))


def test_a_stage_of_which_a_part_is_unpriced_tells_nothing_of_a_success(tmp_path: Path) -> None:
    ledger = Ledger(open_database(tmp_path / "ledger.sqlite"))
    unpriced = Line(stage="infer", model="mystery", charges=None, consumed=(("input", 3.0),))
    ledger.record(entry("a", line("0.003"), success=True))
    ledger.record(entry("b", unpriced, success=True))
    ledger.flush()
    rows = {row["model"]: row for row in figures(ledger.database, "stage")}
    assert (rows["mystery"]["cost"], rows["mystery"]["unpriced"]) == (None, 1)
    assert Decimal(rows["small"]["cost"]) == Decimal("0.003") and rows["small"]["cost_per_success"] is None
    ledger.close()


def test_feedback_goes_before_what_a_check_said_by_stage_too(tmp_path: Path) -> None:
    ledger = Ledger(open_database(tmp_path / "ledger.sqlite"))
    ledger.record(entry("a", line("0.003"), success=False))
    ledger.record(entry("b", line("0.001")))
    ledger.feedback("a", tenant="acme", success=True, at=NOW)
    ledger.feedback("b", tenant="zeta", success=True, at=NOW)
    ledger.flush()
    (row,) = figures(ledger.database, "stage")
    assert Decimal(row["cost_per_success"]) == Decimal("0.003") and Decimal(row["cost"]) == Decimal("0.004")
    ledger.close()


def test_a_period_and_a_tenant_narrow_it(database: Database) -> None:
    assert [row["tenant"] for row in figures(database, "tenant", since="2026-11-01")] == ["acme"]
    assert [row["tenant"] for row in figures(database, "tenant", until="2026-11-01")] == ["zeta"]
    assert figures(database, "tenant", tenant="nobody") == [] == figures(database, "stage", tenant="nobody")
    (row,) = figures(database, "tenant, week,tenant", tenant="zeta")
    assert (row["tenant"], row["week"]) == ("zeta", "2026-W43")


@pytest.mark.parametrize("by", ["colour", "stage,model", "task_type", "week,stage"])
def test_what_there_is_no_report_by_is_told(database: Database, by: str) -> None:
    with pytest.raises(ConfigError, match="task-type"):
        figures(database, by)


def test_times_are_dates_or_how_long_ago() -> None:
    assert moment(None) is None
    assert moment("2026-11-20") == datetime(2026, 11, 20, tzinfo=UTC)
    assert moment("2026-11-20T10:00+02:00") == datetime(2026, 11, 20, 8, tzinfo=UTC)
    for text, ago in (("24h", timedelta(hours=24)), ("7d", timedelta(days=7)), ("4w", timedelta(weeks=4))):
        found = moment(text)
        assert found is not None and abs(datetime.now(UTC) - ago - found) < timedelta(minutes=1)


@pytest.mark.parametrize("text", ["soon", "", "7", "7x", "-7d", "999999w", "2026-13-01", "٧d"])
def test_what_is_no_time_is_told(text: str) -> None:
    with pytest.raises(ConfigError, match="no time"):
        moment(text)
