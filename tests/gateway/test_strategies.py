"""What strategies a server offers, and those at work. Their answers are tried in tests/gateway/test_solving.py."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from foreword.engines.echo import load
from foreword.errors import Overloaded
from foreword.gateway.bridge import Bridge
from foreword.gateway.errors import Refusal
from foreword.gateway.metrics import Metrics
from foreword.gateway.naming import Named
from foreword.gateway.strategies import Offer, Strategies, is_strategy, names_over
from foreword.gateway.strategy_model import StrategyModel
from foreword.prompting import strategy
from foreword.prompting.strategy import solve
from foreword.types import Message, Sampling

LONG = (Message(role="user", content="w " * 1000),)


def test_names():
    assert is_strategy("strategy:cot(echo)") and not is_strategy("echo:strategy")
    assert "strategy:zero-shot(org/model)" in names_over("org/model") and len(names_over("x")) == len(strategy.names())


def read(model: str) -> Any:
    engine = load().serve()
    try:
        return asyncio.run(Strategies(Offer(), Metrics(engine)).read(model))
    finally:
        engine.close()


def test_a_name_is_read():
    found, model = read("strategy:self-consistency(echo:a+b@prod, n=3, adaptive=false)")
    assert str(found) == "self-consistency(n=3, adaptive=false)" and model == "echo:a+b@prod"


@pytest.mark.parametrize(
    ("model", "status"),
    [
        ("strategy:nope(echo)", 404),
        ("strategy:cot(" + "x" * 600 + ")", 404),
        ("strategy:cot()", 400),
        ("strategy:cot(echo, 3)", 400),
        ("strategy:self-consistency(echo, n=0)", 400),
        ("strategy:self-consistency(echo, least=99999)", 400),
        ("strategy:cot(echo, shots=1e999)", 400),
        ("strategy:../../x(echo)", 400),
        ("strategy:" + "(" * 400, 400),
        ("strategy:cot(echo, stages=" + "[" * 400 + ")", 400),
    ],
)
def test_what_is_no_name(model: str, status: int):
    with pytest.raises(Refusal) as refused:
        read(model)
    assert (refused.value.status, refused.value.detail.param) == (status, "model")


def test_what_is_at_work_is_counted_bounded_and_stopped():
    engine = load("echo-20ms").serve()
    metrics = Metrics(engine)

    async def main() -> None:
        bridge, strategies = Bridge(engine), Strategies(Offer(at_once=2), metrics)

        def begin() -> asyncio.Task[Any]:
            model = StrategyModel(bridge, Named(model="echo"), room=strategies.room, shorten=False)
            solving = solve(strategy.parse("zero-shot"), LONG, model, sampling=Sampling(max_new_tokens=2000))
            return strategies.begin(solving, key="zero-shot", label="", model=model)

        tasks = [begin(), begin()]
        with pytest.raises(Overloaded):
            begin()
        async with asyncio.timeout(30):
            while engine.load().running < 2:
                await asyncio.sleep(0.005)
        strategies.stop()
        assert {type(error) for error in await asyncio.gather(*tasks, return_exceptions=True)} == {asyncio.CancelledError}
        again = begin()
        strategies.stop()
        await asyncio.wait({again})
        bridge.close()

    asyncio.run(main())
    engine.close()
    families = text_string_to_metric_families(metrics.text().decode())
    found = {(sample.name, *sample.labels.values()): sample.value for family in families for sample in family.samples}
    assert found["foreword_strategies_total", "cancelled", "zero-shot"] == 3
    assert found["foreword_strategy_calls_total", "zero-shot"] == 2
