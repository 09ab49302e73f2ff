"""What GEPA is told: scores that add up to zero for the given prompt, and rank by cost per success."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest

import labelling_script as task
from foreword.cost.prices import Price
from foreword.engines.scripted import ScriptedEngine
from foreword.prompting import judging, model
from foreword.prompting.candidates import EXAMPLES, space
from foreword.prompting.journal import Journal
from foreword.prompting.searching import OptimiseSettings, Search
from foreword.prompting.spending import Limits, Purse

PRICE = Price(input_per_million=Decimal(1), output_per_million=Decimal(1))
DEV = task.rows(40)


@pytest.fixture
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner


def search(runner: asyncio.Runner, percent: Any, *, price: Price | None = PRICE, failure_cost: str = "0") -> Search:
    judge = judging.StrategyJudge(model.of(ScriptedEngine(task.script(percent))), judging.equals, price=price)
    purse = Purse(judge, Limits(calls=10_000), Journal(None, work={}), runner)
    found = space(task.prompt(), task.rows(8, 100), strategies=("zero-shot",), most_examples=4)
    made = Search(found, purse, DEV, OptimiseSettings(failure_cost=Decimal(failure_cost)), held_out=[], observe=lambda step: None)
    made.begin()
    return made


def scored(one: Search, examples: str = "[]") -> float:
    batch = one.evaluate(DEV, {EXAMPLES: examples, "instruction": "Classify the number."}, capture_traces=True)
    assert len(batch.scores) == len(batch.outputs) == len(batch.trajectories) == len(DEV)
    return sum(batch.scores)


@pytest.mark.parametrize("failure_cost", ["0", "0.001"])
@pytest.mark.parametrize("price", [PRICE, None])
def test_scores_have_the_sign_of_what_is_gained(runner: asyncio.Runner, price: Price | None, failure_cost: str):
    better, worse = (search(runner, percent, price=price, failure_cost=failure_cost) for percent in (task.by_examples, lambda told: 40))
    assert scored(better) == pytest.approx(0, abs=1e-9)
    for one in (better, worse):
        score = scored(one, "[0, 1, 2]")
        given, other = (tried.measured for tried in one.tried)
        assert (score > 0) == (other.dearness < given.dearness)


def test_where_nothing_succeeds_only_successes_count(runner: asyncio.Runner):
    one = search(runner, lambda told: 0 if len(told) == 2 else 30)
    assert scored(one) == 0
    score = scored(one, "[0]")
    assert score == one.tried[1].measured.success.successes > 0 and one.best is one.tried[1]


def test_failures_come_first_in_what_is_reflected_on(runner: asyncio.Runner):
    one = search(runner, lambda told: 50)
    batch = one.evaluate(DEV, {EXAMPLES: "[]", "instruction": "Classify the number."}, capture_traces=True)
    records = one.make_reflective_dataset({}, batch, ["instruction"])["instruction"]
    successes = [record["success"] for record in records]
    assert successes == sorted(successes) and records[0]["feedback"].startswith("Wrong. The answer should have been:")
