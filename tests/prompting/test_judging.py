"""The judge: rows asked with a prompt, answers compared, costs kept."""

from __future__ import annotations

import asyncio
from decimal import Decimal

import pytest

from foreword.cost.prices import Price
from foreword.engines.scripted import ScriptedEngine
from foreword.errors import ConfigError, ServingError
from foreword.prompting import judging, model, strategy
from foreword.prompting.template import Template, build
from foreword.types import Example, Message

PRICE = Price(input_per_million=Decimal(1), output_per_million=Decimal(2))
PROMPT = build(
    {"name": "p", "messages": [{"role": "system", "content": "Say it."}, {"role": "user", "content": "{{ text }}"}]}, source="test"
)


def row(text: str, *wanted: str) -> Example:
    return Example(messages=(Message(role="user", content=text),), completions=wanted)


def judged(engine: ScriptedEngine, *rows: Example, template: Template = PROMPT, price: Price | None = PRICE) -> tuple[judging.Judged, ...]:
    async def run() -> tuple[judging.Judged, ...]:
        asked = model.of(engine)
        try:
            return await judging.StrategyJudge(asked, judging.equals, price=price).evaluate(template, strategy.get("zero-shot"), rows)
        finally:
            await asked.close()

    return asyncio.run(run())


def test_each_row_has_a_verdict_and_what_it_took():
    engine = ScriptedEngine(lambda conversation, sampling: conversation[-1].content.upper())
    first, second = judged(engine, row("a b", "A B"), row("c", "d", "e"))
    assert first.success and not second.success
    assert (first.answer, first.calls, first.tokens) == ("A B", 1, 4 + 2)
    assert first.cost == Decimal("0.000008") and second.cost == Decimal("0.000005")


def test_without_a_price_there_is_no_cost():
    assert judged(ScriptedEngine(lambda conversation, sampling: "x"), row("a", "x"), price=None)[0].cost is None


def test_one_row_that_fails_is_a_failure_and_all_are_an_error():
    def script(conversation: object, sampling: object) -> str:
        raise ServingError("the machine is down")

    with pytest.raises(ServingError, match="answered none of 2 rows: the machine is down"):
        judged(ScriptedEngine(script), row("a", "x"), row("b", "x"))

    def moody(conversation: tuple[Message, ...], sampling: object) -> str:
        if conversation[-1].content == "a":
            raise ServingError("the machine is down")
        return "x"

    first, second = judged(ScriptedEngine(moody), row("a", "x"), row("b", "x"))
    assert (first.success, second.success) == (False, True)


def test_the_judge_is_named_for_evidence():
    assert judging.StrategyJudge(model.of(ScriptedEngine(lambda *_: "")), judging.contains).name == "scripted by contains"


@pytest.mark.parametrize(
    ("rule", "answer", "wanted", "success"),
    [
        ("equals", " Yes. ", "yes", True),
        ("equals", "I think so. The answer is: yes", "yes", True),
        ("equals", "yes and no", "yes", False),
        ("equals", "1,200.0", "1200", True),
        ("contains", "It is a stolen card, sorry.", "stolen card", True),
        ("contains", "uncertain", "certain", False),
        ("number", "so 3 + 4 = 7.", "#### 7", True),
        ("number", "seven", "7", False),
        ("number", "Answer: 12 of 40", "12 of 40", True),
    ],
)
def test_rules(rule: str, answer: str, wanted: str, success: bool):
    assert judging.rule(rule)(answer, row("q", "something else", wanted)) is success


def test_an_unknown_rule():
    with pytest.raises(ConfigError, match="There are equals, contains, number"):
        judging.rule("vibes")
