"""The audit: what earns nothing goes, what earns something stays, and the rest says why."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

import labelling_script as task
from foreword.cost.prices import Price
from foreword.engines.scripted import ScriptedEngine
from foreword.errors import ConfigError
from foreword.prompting import judging, model
from foreword.prompting.compressing import Audit, AuditSettings, audit
from foreword.prompting.spending import CHUNK, Limits

SYSTEM = "You are a very friendly clerk of the town. Please always answer with one word. Classify the number. It is for {{ town }}."
HAND = task.prompt(
    SYSTEM,
    variables={"town": "Ely"},
    examples=[{"user": "number 3", "assistant": "odd"}, {"user": "number 4", "assistant": "even"}],
)


def by_sentences(conversation: Any) -> float:
    text = conversation[0].content
    example = any(message.content == "odd" for message in conversation)
    return 20 + 30 * ("one word" in text) + 20 * ("Classify the number" in text) + 10 * example


def found(percent: Any = by_sentences, *, calls: int = 5000, hand: Any = HAND, engine: Any = None, **options: Any) -> Audit:
    engine = engine or ScriptedEngine(task.script(percent))
    price = Price(input_per_million=Decimal(1), output_per_million=Decimal(1))
    judge = judging.StrategyJudge(model.of(engine), judging.equals, price=price)
    settings = AuditSettings(**options.pop("settings", {}))
    return audit(hand, judge, task.rows(60), limits=Limits(calls=calls), settings=settings, **options)


def outcomes(one: Audit) -> dict[str, str]:
    return {line.part.text: line.outcome for line in one.lines}


def test_what_earns_nothing_goes():
    one = found(held_out=task.rows(30, 100))
    assert outcomes(one) == {
        "You are a very friendly clerk of the town.": "removed",
        "Please always answer with one word.": "shortened",
        "Classify the number.": "kept",
        "number 3 → odd": "kept",
        "number 4 → even": "removed",
    }
    assert one.template.messages[0].content == "Answer with one word. Classify the number. It is for {{ town }}."
    assert [shot.user for shot in one.template.examples] == ["number 3"]
    assert one.tokens[1] < one.tokens[0] and one.rows.difference.difference == 0
    assert one.held_out is not None and one.held_out.before.success.rows == 30
    assert one.rows.after.tokens < one.rows.before.tokens


def test_what_would_save_most_is_tried_first():
    tokens = [line.part.tokens for line in found().lines]
    assert tokens == sorted(tokens, reverse=True)
    by_letters = [line.part.tokens for line in found(count=len).lines]
    assert by_letters[0] == len("You are a very friendly clerk of the town. ")


def test_a_tolerance_lets_more_go_and_is_shared_by_all_changes():
    strict, loose = found(), found(settings={"tolerance": 0.25})
    assert loose.tokens[1] < strict.tokens[1] and loose.rows.difference.difference >= -0.25
    assert found(settings={"tolerance": 0.99}).template.messages[0].content == "It is for {{ town }}."


def test_a_margin_asks_the_interval():
    one = found(lambda conversation: 50, settings={"margin": 0.001})
    assert set(outcomes(one).values()) == {"kept"}, "sixty rows without a change cannot rule out a thousandth"
    assert "removed" in outcomes(found(lambda conversation: 50, settings={"margin": 0.1})).values()


def test_examples_can_be_left_alone():
    one = found(lambda conversation: 50, settings={"examples": False})
    assert one.template.examples == HAND.examples and one.template.messages[0].content == "It is for {{ town }}."


def test_the_last_sentence_of_a_message_takes_the_message_with_it():
    hand = task.prompt("Be kind.")
    one = found(lambda conversation: 50, hand=hand)
    assert [turn.role for turn in one.template.messages] == ["user"]


def test_what_a_variable_needs_stays():
    hand = task.prompt("Be kind.", user="{{ text }}")
    one = found(lambda conversation: 50, hand=hand)
    assert one.template.required == ("text",)


def test_a_spent_budget_leaves_the_rest_untried():
    engine = ScriptedEngine(task.script(by_sentences))
    one = found(engine=engine, calls=150)
    assert engine.calls <= 150 + CHUNK
    assert [line.outcome for line in one.lines][:1] == ["removed"] and {line.outcome for line in one.lines[2:]} == {"not tried"}
    with pytest.raises(ConfigError, match="spent before the prompt as it was given"):
        found(calls=20)


def test_an_interrupted_audit_pays_nothing_twice(tmp_path: Path):
    engines = [ScriptedEngine(task.script(by_sentences)) for _ in range(2)]
    first, again = (found(engine=engine, journal=tmp_path / "journal.jsonl") for engine in engines)
    assert first == again and engines[1].calls == 0


def test_evidence():
    evidence = found().template.evidence
    assert evidence is not None and evidence["parts"] == {"removed": 2, "shortened": 1, "kept": 2, "not tried": 0}


def test_rows_are_needed():
    judge = judging.StrategyJudge(model.of(ScriptedEngine(lambda *_: "")), judging.equals)
    with pytest.raises(ConfigError, match="give some"):
        audit(HAND, judge, [], limits=Limits(calls=10))
