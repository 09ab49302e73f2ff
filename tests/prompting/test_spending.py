"""The purse: nothing is paid for twice, nothing is begun when nothing is left."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

import labelling_script as task
from foreword.cost.prices import Price
from foreword.engines.scripted import ScriptedEngine
from foreword.errors import BudgetSpent, ConfigError
from foreword.prompting import judging, model, strategy
from foreword.prompting.journal import Journal
from foreword.prompting.spending import CHUNK, Limits, Purse, row_key
from foreword.types import Completion, Usage

PRICE = Price(input_per_million=Decimal(1), output_per_million=Decimal(1))
PROMPT, ZERO = task.prompt(), strategy.get("zero-shot")


class Bench:
    """A purse on a scripted engine, and what the engine was asked."""

    def __init__(self, runner: asyncio.Runner, limits: Limits, *, journal: Path | None = None, price: Price | None = PRICE) -> None:
        self.engine = ScriptedEngine(task.script(task.by_examples))
        judge = judging.StrategyJudge(model.of(self.engine), judging.equals, price=price)
        self.purse = Purse(judge, limits, Journal(journal, work={}), runner)

    def judged(self, key: str, count: int) -> list[judging.Judged]:
        return self.purse.judged(key, PROMPT, ZERO, task.rows(count))


@pytest.fixture
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner


def test_each_verdict_is_paid_for_once(runner: asyncio.Runner):
    bench = Bench(runner, Limits(calls=1000))
    first = bench.judged("a", 10)
    assert bench.judged("a", 10) == first and bench.engine.calls == 10
    bench.judged("a", 12)
    bench.judged("b", 5)
    assert bench.engine.calls == bench.purse.spent.calls == 17
    assert bench.purse.spent.money == sum((one.cost for one in first), Decimal(0)) * 17 / 10
    twice = bench.purse.judged("c", PROMPT, ZERO, task.rows(1) * 3)
    assert len(twice) == 3 and bench.engine.calls == 18


@pytest.mark.parametrize("limits", [Limits(calls=100), Limits(money=Decimal("0.0006"))])
def test_a_budget_is_overrun_by_one_group_at_most(runner: asyncio.Runner, limits: Limits):
    bench = Bench(runner, limits)
    with pytest.raises(BudgetSpent):
        bench.judged("a", 1000)
    assert 100 <= bench.engine.calls < 100 + CHUNK and bench.purse.share >= 1
    assert len(bench.judged("a", 90)) == 90, "what is paid for stays"
    with pytest.raises(BudgetSpent):
        bench.judged("b", 1)


def test_what_is_kept_back_is_not_touched(runner: asyncio.Runner):
    bench = Bench(runner, Limits(calls=100))
    bench.purse.kept_back_calls = 60
    with pytest.raises(BudgetSpent):
        bench.judged("a", 200)
    assert bench.engine.calls == 64
    bench.purse.kept_back_calls = 0
    assert len(bench.judged("b", 30)) == 30


def test_money_needs_a_price(runner: asyncio.Runner):
    with pytest.raises(ConfigError, match="Give a price"):
        Bench(runner, Limits(money=Decimal(1)), price=None).judged("a", 1)
    bench = Bench(runner, Limits(calls=10), price=None)
    bench.judged("a", 1)
    assert bench.purse.spent.money is None


def test_another_run_goes_on_from_the_journal(runner: asyncio.Runner, tmp_path: Path):
    path = tmp_path / "journal.jsonl"
    first = Bench(runner, Limits(calls=1000), journal=path)
    verdicts = first.judged("a", 40)
    again = Bench(runner, Limits(calls=1000), journal=path)
    assert again.judged("a", 50)[:40] == verdicts
    assert again.engine.calls == 10 and again.purse.spent.calls == 50, "what the first run paid counts"


def test_texts_are_asked_once_too(runner: asyncio.Runner, tmp_path: Path):
    asked = []

    async def ask() -> tuple[Completion, Decimal | None]:
        asked.append(1)
        usage = Usage(prompt_tokens=5, completion_tokens=2)
        return Completion(text="New.", token_ids=(1, 2), usage=usage, finish_reason="stop", seconds=0.0), Decimal("0.5")

    path = tmp_path / "journal.jsonl"
    for _ in range(2):
        bench = Bench(runner, Limits(money=Decimal(1)), journal=path)
        assert bench.purse.asked("r/1", ask) == "New."
        assert bench.purse.spent.money == Decimal("0.5") and bench.purse.spent.tokens == 7
    assert asked == [1]
    with pytest.raises(BudgetSpent):
        bench.purse.asked("r/2", ask)
        bench.purse.asked("r/3", ask)


@pytest.mark.parametrize("limits", [{}, {"money": Decimal(0)}, {"calls": 0}, {"money": Decimal(-1), "calls": 5}])
def test_limits(limits: dict[str, Any]):
    with pytest.raises(ConfigError):
        Limits(**limits)


def test_rows_are_known_by_what_they_say():
    first, second = task.rows(2)
    assert row_key(first) == row_key(task.rows(1)[0]) != row_key(second)
