"""What runs a strategy: reading its name, budgets, failures, seeds, and what is told at the end."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

import pytest

from asking import QUESTION, InLoop, solved
from foreword.cost.prices import Price
from foreword.engines.scripted import ScriptedEngine
from foreword.errors import BudgetSpent, ConfigError, RegistryError, ServingError, WindowError
from foreword.prompting import model, strategy, verifier
from foreword.prompting.strategy import Budget, Draft, Resources, Run, together
from foreword.prompting.template import Shot
from foreword.prompting.tool import Tool, Tools
from foreword.types import Completion, Message, Sampling


async def _nothing(arguments: Mapping[str, Any]) -> str:
    return "nothing"


TOOL = Tool(name="look", description="Looks.", parameters={"type": "object"}, call=_nothing)
RESOURCES = Resources(shots=(Shot(user="2 + 2", assistant="Answer: 4"),), verify=verifier.get("json-object"), tools=Tools.of([TOOL]))
PER_TOKEN = Price(input_per_million=Decimal(10), output_per_million=Decimal(20))


class Failing(InLoop):
    """Fails at its n-th call."""

    def __init__(self, error: Exception, at: int = 1) -> None:
        super().__init__(["Answer: 42"])
        self._error, self._at = error, at

    async def answer(self, conversation: Sequence[Message], sampling: Sampling) -> Completion:
        completion = await super().answer(conversation, sampling)
        if len(self.asked) >= self._at:
            raise self._error
        return completion


class Waiting(InLoop):
    """Answers its first calls, and never the others; counts those that are given up."""

    def __init__(self, answered: int) -> None:
        super().__init__(["Answer: 42"])
        self._answered, self.given_up = answered, 0
        self.waits: asyncio.Event | None = None

    async def answer(self, conversation: Sequence[Message], sampling: Sampling) -> Completion:
        completion = await super().answer(conversation, sampling)
        if len(self.asked) > self._answered:
            if self.waits is not None:
                self.waits.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                self.given_up += 1
                raise
        return completion


# Names


def test_every_strategy_can_be_had_without_settings() -> None:
    wanted = {"best-of-n", "cot", "debate", "few-shot", "plan-and-solve", "reflection", "role", "self-consistency", "zero-shot"}
    assert wanted <= set(strategy.names())
    for name in strategy.names():
        assert str(strategy.get(name)) == name


def test_a_name_with_settings_is_read() -> None:
    found = strategy.parse(" self-consistency( n=10, adaptive=false,temperature=0.5, reading=last-line ) ")
    assert found.key == "self-consistency"
    assert (found.settings.n, found.settings.adaptive, found.settings.temperature) == (10, False, 0.5)  # type: ignore[attr-defined]
    assert str(found) == "self-consistency(n=10, temperature=0.5, adaptive=false, reading=last-line)"


@pytest.mark.parametrize("value", ["a patient teacher", "a, b (c)", 'say "x"', "true", "", "a=b", '\\ " \\\\', "2", " x ", "ü, ✓"])
def test_what_is_written_is_read_again(value: str) -> None:
    written = strategy.get("role", persona=value)
    assert strategy.parse(str(written)).settings == written.settings


def test_hyphens_in_settings_are_underscores() -> None:
    assert strategy.parse("plan-and-solve(most-steps=3)").settings.most_steps == 3  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("text", "error", "reason"),
    [
        ("", ConfigError, "is no strategy"),
        ("Cot", ConfigError, "is no strategy"),
        ("cot(", ConfigError, "is no strategy"),
        ("nonsense", RegistryError, "self-consistency"),
        ("self-consistency(samples=3)", ConfigError, "Its settings: n, temperature"),
        ("self-consistency(n=0)", ConfigError, "`n`"),
        ("self-consistency(n=many)", ConfigError, "`n`"),
        ("self-consistency(temperature=NaN)", ConfigError, "`temperature`"),
        ("self-consistency(10)", ConfigError, "is no setting"),
    ],
)
def test_what_cannot_be_read_is_told(text: str, error: type[Exception], reason: str) -> None:
    with pytest.raises(error, match=reason.replace("(", "\\(")):
        strategy.parse(text)


def test_together_with_a_model() -> None:
    found, name = strategy.parse_with_model("strategy:self-consistency(smollm2:support@prod, n=10)")
    assert (str(found), name) == ("self-consistency(n=10)", "smollm2:support@prod")
    assert strategy.parse_with_model("cot(smollm2)")[1] == "smollm2"
    for text, count in (("strategy:cot", 0), ("strategy:cot(a, b)", 2), ("strategy:cot(stages=1)", 0)):
        with pytest.raises(ConfigError, match=f"it names {count}"):
            strategy.parse_with_model(text)


# Budgets


def test_a_budget_of_calls() -> None:
    found = solved("self-consistency(n=9, adaptive=false)", ["Answer: 42"], budget=Budget(calls=4))
    assert (found.status, found.calls, found.final) == ("budget", 4, "42") and "budget of 4 calls" in found.reason


def test_a_budget_of_tokens() -> None:
    found = solved("reflection(rounds=9)", ["one two three Verdict: wrong"], budget=Budget(tokens=30))
    assert found.status == "budget" and "30 tokens" in found.reason
    assert found.usage.prompt_tokens + found.usage.completion_tokens >= 30


def test_a_budget_of_money() -> None:
    found = solved("debate(rounds=9, until_agreed=false)", ["Answer: 42"], budget=Budget(money=Decimal("0.001")), price=PER_TOKEN)
    assert found.status == "budget" and "0.001 is spent" in found.reason and found.final == "42"
    assert found.cost is not None and found.cost >= Decimal("0.001")


def test_a_budget_of_seconds_gives_up_what_is_under_way() -> None:
    asked = Waiting(answered=4)
    found = solved("self-consistency(n=40, batch=4, confidence=1)", asked, budget=Budget(seconds=1.0))
    assert (found.status, found.final, found.calls) == ("budget", "42", 8) and "1 seconds" in found.reason
    assert asked.given_up == 4
    assert {span.status for span in found.trace.of_kind("call")[4:]} == {"error"}


def test_nothing_is_left_before_the_first_call() -> None:
    found = solved("zero-shot", ["42"], budget=Budget(calls=0))
    assert (found.status, found.text, found.calls) == ("budget", "", 0)


def test_what_is_left_and_what_others_are_charged() -> None:
    async def run() -> tuple[Run, Run]:
        outer = Run(InLoop(["a b c"]), budget=Budget(calls=5, tokens=100, money=Decimal(1)), price=PER_TOKEN)
        await outer.ask(QUESTION)
        inner = Run(InLoop(["a b c"]), budget=outer.left(), price=PER_TOKEN)
        await inner.ask(QUESTION)
        outer.charge(inner)
        return outer, inner

    outer, inner = asyncio.run(run())
    assert (inner.budget.calls, inner.budget.tokens) == (4, 100 - inner.tokens)
    assert (outer.calls, outer.tokens, outer.cost) == (2, 2 * inner.tokens, 2 * (inner.cost or 0))
    assert outer.left().calls == 3


# Failures


@pytest.mark.parametrize("error", [ServingError("the engine stopped"), WindowError("too long")])
def test_a_model_that_cannot_be_asked(error: Exception) -> None:
    found = solved("zero-shot", Failing(error))
    assert (found.status, found.reason, found.text, found.calls) == ("failed", str(error), "", 1)
    assert found.trace.spans[0].status == "error"


def test_what_was_found_before_a_failure_is_kept() -> None:
    found = solved("self-consistency(n=9, batch=1, confidence=1)", Failing(ServingError("the engine stopped"), at=4))
    assert (found.status, found.final, found.calls) == ("failed", "42", 4)


NONSENSE = {
    "silence": "",
    "no form at all": "Well, that depends.",
    "half a form": "Thought:\nAction: \nAction Input: {\nVerdict: maybe\nAnswer:\nBest: none",
    "braces": "{" * 2_000,
    "no end": "step by step and " * 5_000,
    "half a character": "\ud800 = \ud800",
}


@pytest.mark.parametrize("said", NONSENSE.values(), ids=NONSENSE.keys())
@pytest.mark.parametrize("name", strategy.names())
def test_a_model_that_never_keeps_to_a_form_ends_bounded_and_explained(name: str, said: str) -> None:
    found = solved(name, [said], resources=RESOURCES)
    assert found.calls <= 61
    assert found.status in ("answered", "failed") and bool(found.reason) == (found.status == "failed")
    assert len(list(found.trace.lines())) >= found.calls


@pytest.mark.parametrize("name", strategy.names())
def test_a_model_that_hangs_is_given_up(name: str) -> None:
    found = solved(name, Waiting(answered=0), resources=RESOURCES, budget=Budget(seconds=0.05))
    assert (found.status, found.reason) == ("budget", "The budget of 0.05 seconds is spent.")


def test_a_mistake_in_the_program_is_raised() -> None:
    with pytest.raises(ZeroDivisionError):
        solved("zero-shot", Failing(ZeroDivisionError()))


def test_the_users_turn_must_be_the_last() -> None:
    for conversation in ((), (*QUESTION, Message(role="assistant", content="42"))):
        with pytest.raises(ConfigError, match="End it with one"):
            solved("zero-shot", ["42"], conversation)


def test_cancelling_gives_up_every_call() -> None:
    asked = Waiting(answered=0)

    async def run() -> None:
        asked.waits = asyncio.Event()
        task = asyncio.ensure_future(strategy.solve(strategy.parse("self-consistency(batch=5)"), QUESTION, asked))
        await asked.waits.wait()
        for _ in range(5):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(run())
    assert asked.given_up == 5


def test_together_cancels_the_others() -> None:
    async def fails() -> None:
        raise BudgetSpent("spent")

    async def run() -> bool:
        ended = []

        async def waits() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                ended.append(True)

        with pytest.raises(BudgetSpent):
            await together([waits(), fails()])
        return bool(ended)

    assert asyncio.run(run())
    assert asyncio.run(together([asyncio.sleep(0, "a"), asyncio.sleep(0, "b")])) == ["a", "b"]


# Seeds


def seeds(text: str, seed: int) -> list[int]:
    asked = InLoop(["Answer: a", "Answer: b"])
    solved(text, asked, sampling=Sampling(seed=seed))
    return [sampling.seed for sampling in asked.samplings]


def test_the_same_run_draws_the_same() -> None:
    assert seeds("debate", 0) == seeds("debate", 0)
    assert not set(seeds("debate", 0)) & set(seeds("debate", 1))
    assert len(set(seeds("self-consistency(n=20, adaptive=false)", 7))) == 20
    one, four = (seeds(f"self-consistency(n=20, confidence=1, batch={batch})", 7) for batch in (1, 4))
    assert one[:8] == four[:8], "how many are drawn at once changes no draw"
    assert all(0 <= seed < 2**31 for seed in one)


def test_threads_do_not_change_the_answer() -> None:
    def script(conversation: Sequence[Message], sampling: Sampling) -> str:
        return f"Answer: {sampling.seed % 7}"

    async def run() -> tuple[str, tuple[str, ...]]:
        asked = model.of(ScriptedEngine(script))
        found = await strategy.solve(strategy.parse("self-consistency(n=20, adaptive=false)"), QUESTION, asked)
        await asked.close()
        return found.text, found.candidates

    assert len({asyncio.run(run()) for _ in range(3)}) == 1


# What is told


def test_tokens_cost_and_seconds() -> None:
    found = solved("self-consistency(n=3, adaptive=false)", ["Answer: 42"], price=PER_TOKEN)
    assert found.usage.completion_tokens == 6
    assert found.cost == (found.usage.prompt_tokens * Decimal(10) + 6 * Decimal(20)) / 1_000_000
    assert 0 < found.model_seconds <= found.seconds
    assert solved("zero-shot", ["42"]).cost is None, "an unknown price is not 0"


def test_an_hour_of_the_machine_is_paid_by_the_second() -> None:
    found = solved("zero-shot", ["42"], price=Price(machine_hour=Decimal(3600)))
    assert found.cost is not None and 0 < found.cost < 60


def test_the_trace_holds_every_call() -> None:
    found = solved("self-consistency(n=2, adaptive=false)", ["Answer: 42"])
    outer, *calls = found.trace.spans
    assert (outer.kind, outer.name, outer.parent) == ("run", "self-consistency(n=2, adaptive=false)", None)
    assert outer.attributes["final"] == "42" and outer.attributes["calls"] == 2
    assert [(span.kind, span.parent, span.attributes["purpose"]) for span in calls] == [("call", 1, "sample")] * 2
    assert calls[0].attributes["text"] == "Answer: 42" and calls[0].attributes["prompt"][0]["role"] == "user"  # type: ignore[index]


def test_a_draft_that_is_the_whole_answer_is_final_too() -> None:
    assert Draft(text="all of it").final is None
    assert solved("zero-shot", ["all of it"]).final == "all of it"


def test_resources_without_an_embedder_have_no_vectors() -> None:
    with pytest.raises(ConfigError, match="no embedder"):
        Resources().shot_vectors()
