"""The ledger: exact sums, rounding known, unpriced never free, the same on SQLite and PostgreSQL."""

from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import select

from foreword.cost.ledger import CHARGES, ENTRIES, METADATA, UNIT, Entry, Ledger, Line, Saving, money, total, week_of, whole_units
from foreword.cost.rates import Charge
from foreword.cost.report import cost_report, stage_rows
from foreword.errors import ConfigError
from foreword.store.database import open_database

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)


@pytest.fixture(params=["sqlite", "postgresql"])
def ledger(request, tmp_path):
    place = tmp_path / "ledger.sqlite" if request.param == "sqlite" else request.getfixturevalue("postgres_url")
    ledger = Ledger(open_database(place))
    yield ledger
    ledger.writer.close()
    METADATA.drop_all(ledger.database._engine)
    ledger.database.close()


def charge(quantity="100", rate="0.00000015", meter="input") -> Charge:
    return Charge(meter=meter, quantity=Decimal(quantity), rate=Decimal(rate))


def entry(name: str, *lines: Line, **fields) -> Entry:
    told = {
        "at": NOW,
        "tenant": "acme",
        "task_type": "support",
        "asked_model": "auto",
        "model": "small",
        "status": "answered",
        "seconds": 0.1,
    }
    return Entry(id=name, lines=lines, **(told | fields))


def line(*charges: Charge, stage: str = "infer", model: str = "small") -> Line:
    return Line(stage=stage, model=model, charges=charges, priced_by="own")


UNPRICED = Line(stage="infer", model="mystery", charges=None, consumed=(("input", 12.0),))

quantities = st.integers(0, 10**7).map(Decimal)
rates = st.decimals(min_value=0, max_value=1, places=11)


@given(st.lists(st.lists(st.builds(Charge, meter=st.just("input"), quantity=quantities, rate=rates), max_size=5), max_size=5))
def test_the_sum_of_the_stages_is_the_total(charges):
    lines = [line(*some, stage=f"stage{number}") for number, some in enumerate(charges)]
    assert total(lines) == sum((total([one]) or Decimal(0) for one in lines), Decimal(0))


@given(st.decimals(min_value=0, max_value=1000, places=15))
def test_rounding_is_within_half_a_unit(amount):
    kept = money(whole_units(amount))
    assert kept is not None and abs(kept - amount) <= UNIT / 2


def test_one_unpriced_line_leaves_the_total_unknown():
    assert total([line(charge()), UNPRICED]) is None
    assert total([]) == 0


def test_entries_and_charges_are_kept_to_the_last_digit(ledger):
    ledger.record(entry("a", line(charge("3", "0.000000000001")), line(charge("7", "0.000000000001"), stage="check")))
    ledger.flush()
    with ledger.database.reading() as connection:
        assert connection.execute(select(ENTRIES.c.amount)).scalar_one() == 10
        assert sorted(connection.execute(select(CHARGES.c.amount)).scalars()) == [3, 7]


def test_what_is_unpriced_is_there_with_its_counts_and_without_an_amount(ledger):
    ledger.record(entry("a", UNPRICED))
    ledger.flush()
    with ledger.database.reading() as connection:
        row = connection.execute(select(CHARGES)).one()
    assert (row.meter, row.quantity, row.amount) == ("input", 12.0, None)
    (told,) = cost_report(ledger.database)
    assert (told.unpriced, told.cost, told.cost_per_success) == (1, None, None)


def test_cost_per_success_pays_for_the_failures_and_not_for_what_nobody_judged(ledger):
    for number, success in enumerate((True, False, False, None)):
        ledger.record(entry(str(number), line(charge("1", "0.03")), success=success))
    ledger.flush()
    (row,) = cost_report(ledger.database)
    assert (row.requests, row.judged, row.successes) == (4, 3, 1)
    assert row.cost == Decimal("0.12")
    assert row.cost_per_success == Decimal("0.09")
    assert row.cost_per_attempt == Decimal("0.03")


def test_one_unpriced_request_leaves_the_cost_of_a_success_unknown(ledger):
    ledger.record(entry("a", line(charge()), success=True))
    ledger.record(entry("b", UNPRICED, success=True))
    ledger.flush()
    (row,) = cost_report(ledger.database)
    assert row.cost_per_success is None
    assert row.cost_per_attempt == Decimal("0.000015")


def test_feedback_is_the_last_word_and_only_of_the_tenant_whose_request_it_was(ledger):
    ledger.record(entry("a", line(charge()), success=False))
    ledger.feedback("a", tenant="acme", success=False, at=NOW)
    ledger.feedback("a", tenant="acme", success=True, at=NOW)
    ledger.feedback("a", tenant="rival", success=False, at=NOW)
    ledger.flush()
    (row,) = cost_report(ledger.database)
    assert (row.requests, row.judged, row.successes) == (1, 1, 1)


def test_groups_periods_and_tenants(ledger):
    ledger.record(entry("a", line(charge()), cache="exact"))
    ledger.record(entry("b", line(charge()), tenant="rival", cache="miss", escalated=True))
    ledger.record(entry("c", line(charge()), at=NOW.replace(year=2025)))
    ledger.flush()
    rows = {row.group: row for row in cost_report(ledger.database, ("tenant", "week"))}
    assert set(rows) == {("acme", "2026-W47"), ("rival", "2026-W47"), ("acme", "2025-W47")}
    assert rows["acme", "2026-W47"].cache_hit_rate == 1
    assert rows["acme", "2025-W47"].cache_hit_rate is None
    assert rows["rival", "2026-W47"].escalation_rate == 1
    assert [row.requests for row in cost_report(ledger.database, since=NOW, tenant="acme")] == [1]
    assert [row.requests for row in cost_report(ledger.database, until=NOW)] == [1]


def test_currencies_are_not_added_up(ledger):
    ledger.record(entry("a", line(charge())))
    ledger.record(entry("b", line(charge()), currency="EUR"))
    ledger.flush()
    assert sorted(row.currency for row in cost_report(ledger.database)) == ["EUR", "USD"]


def test_savings_by_lever(ledger):
    ledger.record(
        entry("a", line(charge()), savings=(Saving(lever="cache", amount=Decimal("0.5")), Saving(lever="prefix", amount=Decimal(1))))
    )
    ledger.record(entry("b", line(charge()), savings=(Saving(lever="cache", amount=Decimal("0.25")),)))
    ledger.flush()
    (row,) = cost_report(ledger.database)
    assert row.saved == {"cache": Decimal("0.75"), "prefix": Decimal(1)}


def test_the_stages_add_up_to_the_whole(ledger):
    ledger.record(entry("a", line(charge()), line(charge("5"), stage="check", model="judge")))
    ledger.record(entry("b", line(charge("9", "0.123456789012"))))
    ledger.flush()
    stages = stage_rows(ledger.database)
    assert [(row.stage, row.model) for row in stages] == [("check", "judge"), ("infer", "small")]
    (row,) = cost_report(ledger.database)
    assert sum((stage.cost for stage in stages if stage.cost is not None), Decimal(0)) == row.cost


def test_an_unknown_dimension_is_refused(ledger):
    with pytest.raises(ConfigError, match="colour"):
        cost_report(ledger.database, ("colour",))  # type: ignore[arg-type]


def test_weeks_are_iso_weeks_in_utc():
    assert week_of(datetime(2027, 1, 1, tzinfo=UTC)) == "2026-W53"
