"""`bill`: what a request cost, to the last digit."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select

from foreword.cost.ledger import CHARGES, ENTRIES, Ledger, Line, money
from foreword.cost.prices import Price
from foreword.cost.rates import Consumed, PriceTable
from foreword.cost.report import cost_report
from foreword.gateway.passage import Attempt, Passage
from foreword.gateway.path_settings import build_settings
from foreword.gateway.stage import Next
from foreword.gateway.stages import bill
from foreword.store.database import open_database
from walking import parts_of, passage_of

PRICES = {
    "small": {"input_per_million": "0.1", "output_per_million": "0.2"},
    "big": {"input_per_million": "1", "output_per_million": "2", "cached_per_million": "0.25"},
}
CONSUMED = Consumed(input_tokens=1000, cache_read_tokens=400, output_tokens=30, reasoning_tokens=10)
OF_BIG = (600 * Decimal(1) + 400 * Decimal("0.25") + 30 * Decimal(2)) / 1_000_000
OF_SMALL = (1000 * Decimal("0.1") + 30 * Decimal("0.2")) / 1_000_000


def attempt(model: str = "big", why: str = "first", consumed: Consumed | None = CONSUMED, status: Any = "answered") -> Attempt:
    return Attempt(model=model, why=why, status=status, seconds=0.1, consumed=consumed)


def billed(
    *attempts: Attempt, ledger: Ledger | None = None, asked: str = "big", change: Callable[[Passage], None] | None = None, **store: Any
) -> Passage:
    models = {name: {"url": "http://127.0.0.1:9/v1", "model": f"{name}-1", "price": price} for name, price in PRICES.items()}
    models["free"] = {"url": "http://127.0.0.1:9/v1", "model": "nobody-lists-this"}
    settings = build_settings({"models": models, "tasks": {"t": {"tiers": ["small", "big"]}}, "store": store}, source="x")
    own = {name: Price.model_validate(price) for name, price in PRICES.items()}

    async def main() -> Passage:
        parts = dataclasses.replace(parts_of(settings), prices=PriceTable(own), ledger=ledger)
        passage = passage_of(settings, {"model": asked, "messages": [{"role": "user", "content": "Hi."}]}, task="t")
        passage.attempts, passage.model = list(attempts), attempts[-1].model if attempts else ""
        if change is not None:
            change(passage)
        stage = bill.make(parts)
        assert await stage(passage) is Next.ON
        before = list(passage.lines)
        # However often it comes by, it is billed once.
        assert await stage(passage) is Next.ON and passage.lines == before
        return passage

    return asyncio.run(main())


@pytest.fixture
def ledger(tmp_path: Path) -> Any:
    ledger = Ledger(open_database(tmp_path / "ledger.sqlite"))
    yield ledger
    ledger.close()


def cost(passage: Passage) -> str:
    return passage.told["foreword-cost"]


def test_an_answer_costs_what_its_model_says_that_it_took() -> None:
    assert Decimal(cost(billed(attempt()))) == OF_BIG
    assert Decimal(cost(billed(attempt("small:support@prod")))) == OF_SMALL


def test_every_attempt_is_paid_for_and_what_took_nothing_is_not() -> None:
    failed = attempt(consumed=None, status="unavailable")
    passage = billed(failed, attempt(why="retry", status="broken"), attempt("small", "fallback"))
    assert Decimal(cost(passage)) == OF_BIG + OF_SMALL
    assert [(line.stage, line.model) for line in passage.lines] == [("infer", "big"), ("infer", "small")]


def test_calls_of_other_stages_are_paid_for_at_those() -> None:
    passage = billed(attempt("small", "summary"), attempt(), attempt("small", "judge"))
    assert [(line.stage, line.model) for line in passage.lines] == [("assemble", "small"), ("infer", "big"), ("check", "small")]


def test_a_price_that_nobody_knows_is_told_and_is_not_nothing(ledger: Ledger, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        passage = billed(attempt(), attempt("free", "fallback"), ledger=ledger)
    assert cost(passage) == "unpriced" and "model free is unpriced" in caplog.text
    ledger.flush()
    with ledger.database.reading() as connection:
        assert connection.execute(select(ENTRIES.c.amount)).scalar_one() is None
        charges = connection.execute(select(CHARGES).where(CHARGES.c.model == "free")).all()
    # What was taken is there, to be priced later.
    assert {(row.meter, row.quantity) for row in charges} >= {("input", 1000.0), ("output", 30.0)}
    assert all(row.amount is None for row in charges)
    (row,) = cost_report(ledger.database)
    assert (row.unpriced, row.cost, row.cost_per_attempt) == (1, None, None)


def test_a_model_that_is_unpriced_is_alerted_of_once(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        billed(attempt("free"), attempt("free", "retry"))
    assert caplog.text.count("unpriced") == 1


def test_what_was_estimated_is_marked(ledger: Ledger) -> None:
    billed(attempt(consumed=dataclasses.replace(CONSUMED, estimated=True)), ledger=ledger)
    ledger.flush()
    with ledger.database.reading() as connection:
        sources = set(connection.execute(select(CHARGES.c.priced_by)).scalars())
    assert len(sources) == 1 and sources.pop().endswith("(estimated)")


def test_a_request_that_cost_nothing_costs_nothing() -> None:
    assert Decimal(cost(billed())) == 0


def test_the_entry_says_what_became_of_the_request(ledger: Ledger) -> None:
    def change(passage: Passage) -> None:
        passage.status, passage.success, passage.score, passage.cache = "cancelled", False, 0.25, "miss"
        passage.escalated, passage.retries, passage.fallbacks = True, 2, 1
        passage.degraded, passage.first_token, passage.user, passage.prompt = ["lighter tier"], 0.5, "u1", "q@v3"

    billed(attempt("small:support"), ledger=ledger, asked="auto", change=change)
    ledger.flush()
    with ledger.database.reading() as connection:
        (entry,) = connection.execute(select(ENTRIES)).mappings()
    told = {name: entry[name] for name in ("status", "success", "score", "cache", "escalated", "retries", "fallbacks", "user", "prompt")}
    assert told == {
        **{"status": "cancelled", "success": 0, "score": 0.25, "cache": "miss", "escalated": 1, "retries": 2, "fallbacks": 1},
        **{"user": "u1", "prompt": "q@v3"},
    }
    assert (entry["asked_model"], entry["model"], entry["prefix"], entry["task_type"]) == ("auto", "small:support", "support", "t")
    assert (entry["degraded"], entry["first_token_seconds"], entry["tenant"]) == ("lighter tier", 0.5, "everybody")
    assert entry["seconds"] > 0 and money(entry["amount"]) == OF_SMALL


def test_lines_that_other_stages_have_added_are_in_the_sum(ledger: Ledger) -> None:
    def change(passage: Passage) -> None:
        rates = PriceTable({"e": Price.model_validate({"input_per_million": "0.02", "output_per_million": "0"})}).rates(
            "e", provider=None, when=passage.at
        )
        assert rates is not None
        charges = rates.charges(Consumed(input_tokens=7, output_tokens=0))
        passage.lines.append(Line(stage="cache", model="e", charges=charges, priced_by="own"))

    passage = billed(attempt(), ledger=ledger, change=change)
    assert Decimal(cost(passage)) == OF_BIG + 7 * Decimal("0.02") / 1_000_000
    ledger.flush()
    with ledger.database.reading() as connection:
        total = connection.execute(select(func.sum(CHARGES.c.amount))).scalar_one()
        assert connection.execute(select(ENTRIES.c.amount)).scalar_one() == total


def test_with_durable_the_entry_is_on_the_disk_before_the_answer_is_sent(ledger: Ledger) -> None:
    billed(attempt(), ledger=ledger, durable=True)
    # Nothing was flushed here.
    with ledger.database.reading() as connection:
        assert connection.execute(select(func.count()).select_from(ENTRIES)).scalar_one() == 1


def test_what_a_cheaper_tier_spared_is_told() -> None:
    passage = billed(attempt("small"), asked="auto")
    assert [(saving.lever, saving.amount) for saving in passage.savings] == [("route", OF_BIG - OF_SMALL)]
    assert billed(attempt("big"), asked="auto").savings == [] and billed(attempt("small"), asked="small").savings == []
