"""What captured contexts cost and how much answers took up."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from foreword.gateway.assembling.audit import audit
from foreword.gateway.assembling.budget import json_tokens, text_tokens
from foreword.telemetry.capture import Captured

SYSTEM = "You answer for Larkspur. Mention the warranty where it helps."
TOOLS = [{"type": "function", "function": {"name": name}} for name in ("refund", "track")]


def captured(number: int, answer: str, question: str = "Where is it?", **fields: Any) -> Captured:
    messages = [
        {"role": "system", "content": fields.pop("system", SYSTEM)},
        *fields.pop("history", []),
        {"role": "user", "content": question},
    ]
    given = {"at": datetime(2026, 3, 2 + 7 * (number % 2), tzinfo=UTC), "tenant": "t", "task": "support", "status": "answered"}
    return Captured(id=str(number), messages=messages, answer=answer, **(given | fields))


def test_sentences_are_counted_with_the_answers_that_take_them_up() -> None:
    found = audit([captured(0, "The warranty lasts."), captured(1, "It is here."), captured(2, "No."), captured(3, "Warranty: two years.")])
    uses = {use.text: use for use in found.sentences}
    assert uses["Mention the warranty where it helps."].used == 0.5
    assert uses["You answer for Larkspur."].used == 0.0
    assert all(use.requests == 4 and use.tokens == text_tokens(use.text) for use in uses.values())


def test_a_word_of_the_question_is_no_use_of_the_template() -> None:
    found = audit([captured(number, "The warranty lasts.", "How long does the warranty last?") for number in range(2)])
    assert {use.text: use.used for use in found.sentences}["Mention the warranty where it helps."] == 0.0


def test_what_is_said_once_is_no_template_and_an_example_is() -> None:
    shots = [{"role": "user", "content": "Is it open?"}, {"role": "assistant", "content": "From nine."}]
    found = audit([captured(number, "Yes.", system=f"{SYSTEM} Today is day {number}.", history=shots) for number in range(3)])
    texts = {use.text for use in found.sentences}
    assert texts == {"You answer for Larkspur.", "Mention the warranty where it helps.", "user: Is it open?", "assistant: From nine."}


def test_a_sentence_of_a_few_requests_is_one_of_their_own_task_type() -> None:
    common = [captured(number, "Yes.") for number in range(10)]
    rare = [captured(20 + number, "Yes.", system="Write a poem.", task="poems") for number in range(2)]
    assert {(use.task, use.text) for use in audit([*common, *rare]).sentences} >= {("poems", "Write a poem.")}


def test_tools_are_counted_by_their_calls() -> None:
    found = audit([captured(0, "", tools=TOOLS, called=["refund"]), captured(1, "", tools=TOOLS[:1], called=["refund", "refund"])])
    assert [(use.name, use.offered, use.called) for use in found.tools] == [("refund", 2, 2), ("track", 1, 0)]
    assert found.tools[0].tokens == json_tokens(TOOLS[0])


def test_passages_are_judged_by_the_share_of_their_words_that_the_answer_has() -> None:
    sources = (("a.md#1", "Returns take thirty days."), ("b.md#1", "Nine to five."))
    question = "Passages\n[1] Returns take thirty days.\n[2] Nine to five.\n\nHow long do returns take?"
    found = audit([captured(number, "Thirty days [1].", question, sources=sources) for number in range(2)])
    uses = {use.source: use for use in found.passages}
    # `returns` and `take` are the user's own words; `thirty` and `days` are left, and the answer has both.
    assert uses["a.md#1"].used == pytest.approx(1.0) and uses["a.md#1"].cited == 2
    assert uses["b.md#1"].used == 0.0 and uses["b.md#1"].cited == 0 and uses["b.md#1"].shown == 2


def test_growth_is_told_by_week() -> None:
    history = [{"role": "user", "content": "x" * 400}, {"role": "assistant", "content": "y" * 400}]
    found = audit(
        [captured(0, "Yes.", input_tokens=100), captured(1, "Yes.", history=history, input_tokens=300, tools=TOOLS), captured(3, "Yes.")]
    )
    assert [(each.week, each.requests) for each in found.growth] == [("2026-W10", 1), ("2026-W11", 2)]
    assert found.growth[0].history == 0 and found.growth[1].history == pytest.approx(104)
    assert found.growth[1].tools == pytest.approx(sum(map(json_tokens, TOOLS)) / 2)
    assert [each.billed for each in found.growth] == [100, 300]


def test_what_the_cache_answered_had_no_context() -> None:
    assert audit([captured(0, "Yes.", cache="semantic"), captured(1, "Yes.", cache="miss")]).requests == 1


def test_nothing_captured_is_nothing_to_report() -> None:
    found = audit([])
    assert found.requests == 0 and found.growth == ()
