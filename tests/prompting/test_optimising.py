"""The search: it finds what helps, keeps to its budget, goes on after an interruption, and says honestly what it found."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

import labelling_script as task
from foreword.cost.prices import Price
from foreword.engines.scripted import ScriptedEngine
from foreword.errors import ConfigError, ServingError
from foreword.prompting import judging, model
from foreword.prompting.optimising import Optimised, optimise
from foreword.prompting.searching import OptimiseSettings
from foreword.prompting.spending import CHUNK, Limits
from foreword.types import Example

PRICE = Price(input_per_million=Decimal(1), output_per_million=Decimal(1))


def found(
    percent: Callable[[Any], float] = task.by_examples,
    *,
    calls: int = 800,
    price: Price | None = PRICE,
    engine: ScriptedEngine | None = None,
    hand: Any = None,
    **options: Any,
) -> Optimised:
    settings = OptimiseSettings(**{"failure_cost": "0.01" if price else "0", **options.pop("settings", {})})
    engine = engine or ScriptedEngine(task.script(percent))
    judge = judging.StrategyJudge(model.of(engine), judging.equals, price=price)
    rows: dict[str, Any] = {"train": task.rows(60), "dev": task.rows(40, 60), "held_out": task.rows(40, 100)} | options
    limits = rows.pop("limits", Limits(calls=calls))
    return optimise(hand or task.prompt(), judge, labels=task.LABELS, limits=limits, settings=settings, price=price, **rows)


def test_it_finds_the_examples_that_help():
    best = found()
    assert best.changed and len(best.template.examples) >= 3
    assert best.dev.difference.difference > 0.3 and best.held_out is not None and best.held_out.difference.low > 0
    assert best.held_out.before.success.rows == 40
    assert best.dev.after.dearness < best.dev.before.dearness
    assert best.tried[0].measured == best.dev.before


def test_what_is_cheaper_wins_where_success_is_the_same():
    long = task.prompt("You are kind. Please classify the number. " + "Think of it as a whole. " * 8)
    best = found(lambda conversation: 60, hand=long, settings={"failure_cost": "0", "most_examples": 0})
    assert best.dev.difference.difference == 0 and best.dev.after.tokens < best.dev.before.tokens


def test_a_prompt_that_is_cheap_because_it_fails_does_not_win():
    def by_instruction(conversation: Any) -> float:
        return 70 if any("Classify the number." in message.content for message in conversation) else 55

    best = found(by_instruction, settings={"failure_cost": "0", "most_examples": 0}, hand=task.prompt("Classify the number. Be brief."))
    assert best.dev.after.success.successes >= best.dev.before.success.successes
    assert any(one.measured.dearness < best.dev.after.dearness for one in best.tried), "something cheaper was tried"


def test_nothing_better_leaves_the_prompt_as_it_is():
    only = task.prompt("Go.")
    best = found(lambda conversation: 80 if conversation[0].content == "Go." and len(conversation) == 2 else 10, hand=only)
    assert not best.changed and best.template.messages == only.messages and best.dev.difference.difference == 0


def test_a_strategy_can_win():
    def by_hint(conversation: Any) -> float:
        return 90 if "Think." in conversation[0].content else 30

    best = found(by_hint, settings={"strategies": ("zero-shot", "zero-shot(instruction=Think.)"), "most_examples": 0})
    assert best.strategy == "zero-shot(instruction=Think.)" and best.template.evidence is not None
    assert best.template.evidence["strategy"] == best.strategy


def test_the_same_seed_finds_the_same():
    first, again, other = found(calls=400), found(calls=400), found(calls=400, settings={"seed": 1})
    assert first == again and first.tried != other.tried


@pytest.mark.parametrize("calls", [90, 150, 400, 900])
def test_the_budget_is_kept(calls: int):
    engine = ScriptedEngine(task.script(task.by_examples))
    best = found(calls=calls, engine=engine)
    assert best.spent.calls == engine.calls <= calls + CHUNK and best.stopped == "the budget is spent"
    assert best.template.evidence is not None and best.template.evidence["limits"] == {"money": None, "calls": calls}


def test_a_budget_in_money():
    limit = Decimal("0.004")
    best = found(limits=Limits(money=limit))
    a_row = Decimal(2 + 3 + 8 * 3 + 1) / 1_000_000  # at most: the instruction, the number, eight examples, the answer
    assert best.spent.money is not None and limit / 2 < best.spent.money <= limit + CHUNK * a_row
    assert best.held_out is not None and best.held_out.after.success.rows == 40


def test_without_a_price_tokens_are_the_cost():
    best = found(price=None)
    assert best.spent.money is None and best.dev.after.cost is None and best.dev.after.dearness <= best.dev.before.dearness


class Interrupting(ScriptedEngine):
    """Stops the run at one call, as the user would."""

    def __init__(self, at: int) -> None:
        super().__init__(task.script(task.by_examples))
        self._at = at

    def generate(self, *arguments: Any, **options: Any) -> Any:
        if self.calls >= self._at:
            raise KeyboardInterrupt
        return super().generate(*arguments, **options)


def test_an_interrupted_search_goes_on_and_pays_nothing_twice(tmp_path: Path):
    whole_engine = ScriptedEngine(task.script(task.by_examples))
    whole = found(engine=whole_engine, calls=600)
    journal, paid = tmp_path / "journal.jsonl", 0
    for at in (100, 170):
        broken = Interrupting(at)
        with pytest.raises(KeyboardInterrupt):
            found(engine=broken, calls=600, journal=journal)
        paid += broken.calls
    last = ScriptedEngine(task.script(task.by_examples))
    assert found(engine=last, calls=600, journal=journal) == whole
    assert whole_engine.calls <= paid + last.calls <= whole_engine.calls + 2 * CHUNK
    once_more = ScriptedEngine(task.script(task.by_examples))
    assert found(engine=once_more, calls=600, journal=journal) == whole and once_more.calls == 0


def test_a_journal_of_other_work(tmp_path: Path):
    found(calls=200, journal=tmp_path / "journal.jsonl")
    with pytest.raises(ConfigError, match="other work"):
        found(calls=200, journal=tmp_path / "journal.jsonl", settings={"seed": 5})


def test_a_model_writes_instructions_anew():
    def script(conversation: Any, sampling: Any) -> str:
        if "write a new instruction" in conversation[-1].content:
            return "```\nSay whether the number is even or odd, with care.\n```"
        return task.script(lambda told: 85 if "with care" in told[0].content else 25)(conversation, sampling)

    engine = ScriptedEngine(script)
    writer = model.of(engine)
    best = found(engine=engine, reflection=writer, settings={"most_examples": 0})
    assert "with care" in best.template.messages[0].content and best.spent.calls == engine.calls


def test_rows_to_learn_from_are_never_examples():
    """An example that is also asked would be answered by copying."""
    asked: set[str] = set()

    def script(conversation: Any, sampling: Any) -> str:
        shown = {message.content for message in conversation[:-1] if message.role == "user"}
        assert conversation[-1].content not in shown
        asked.add(conversation[-1].content)
        return "even"

    found(engine=ScriptedEngine(script), calls=800)
    assert len(asked) > 80


def test_too_little_to_go_on():
    with pytest.raises(ConfigError, match="8 training rows or more"):
        found(train=task.rows(7))
    with pytest.raises(ConfigError, match="dev rows; got 60 and 0"):
        found(dev=())
    with pytest.raises(ConfigError, match="before the given prompt itself was judged on 40 dev rows and 40 held-out rows"):
        found(calls=30)


def test_a_model_that_fails_ends_the_search():
    def script(conversation: Any, sampling: Any) -> str:
        raise ServingError("the machine is down")

    with pytest.raises(ServingError, match="the machine is down"):
        found(engine=ScriptedEngine(script))


def test_prompts_too_long_for_the_window_lose():
    engine = model_with_window(most_words=25)
    best = found(engine=engine)
    assert best.changed and len(best.template.examples) < 8


def model_with_window(most_words: int) -> ScriptedEngine:
    def script(conversation: Any, sampling: Any) -> str:
        if sum(len(message.content.split()) for message in conversation) > most_words:
            raise ServingError("too long")
        return task.script(task.by_examples)(conversation, sampling)

    return ScriptedEngine(script)


def test_evidence_is_json_and_survives_the_store(tmp_path: Path):
    from foreword.prompting.store import PromptStore

    best = found(calls=300)
    store = PromptStore(tmp_path)
    reference = store.publish(best.template)
    evidence = store.load(reference).evidence
    assert evidence == best.template.evidence and evidence is not None
    assert evidence["made_by"] == "foreword prompt optimise" and evidence["held_out"]["before"]["rows"] == 40
    assert "number 1" not in str(evidence), "no row's text is in it"


def test_labels_stand_in_turn_in_the_pool():
    rows = [*task.rows(40)[::2], *task.rows(2)[1:]]
    best = found(train=rows, calls=400)
    assert isinstance(best.template.examples, tuple)
    assert not set(best.template.examples) - {judged_shot(row) for row in rows}


def judged_shot(row: Example) -> Any:
    from foreword.prompting.template import Shot

    return Shot(user=row.prompt, assistant=row.completions[0])
