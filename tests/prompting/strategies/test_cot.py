"""`cot`: reasons first."""

from __future__ import annotations

import pytest

from asking import QUESTION, InLoop, last_words, solved
from foreword.errors import ConfigError
from foreword.prompting.strategy import Budget, Resources
from foreword.prompting.template import Shot
from foreword.types import Sampling

WORKED = (Shot(user="What is 2 times 3?", assistant="Two threes are 6.\n#### 6"),)


def test_a_marked_answer_needs_one_call() -> None:
    model = InLoop(["Six sevens are 42.\nAnswer: 42"])
    found = solved("cot", model)
    assert (found.final, found.calls, found.note) == ("42", 1, "")
    assert "step by step" in last_words(model.asked[0]) and last_words(model.asked[0]).startswith("What is 6 times 7?")


def test_without_a_mark_the_answer_is_asked_for() -> None:
    model = InLoop(["Six sevens are a lot, that is 42", "42."])
    found = solved("cot", model, sampling=Sampling(max_new_tokens=300))
    assert (found.final, found.calls) == ("42.", 2)
    assert model.asked[1][-2].content == "Six sevens are a lot, that is 42"
    assert model.samplings[1].max_new_tokens == 32


def test_two_stages_always_ask_twice_and_one_never() -> None:
    assert solved("cot(stages=2)", ["Answer: 41", "The answer is 42"]).final == "42"
    one = solved("cot(stages=1)", ["no idea\nperhaps 42", "never asked"])
    assert (one.final, one.calls) == ("perhaps 42", 1) and "no answer could be recognised" in one.note


def test_numbers_can_be_read_without_a_mark() -> None:
    found = solved("cot(reading=number)", ["Therefore she has $1,200.00 left"])
    assert (found.final, found.calls) == ("1200", 1)


def test_worked_examples_are_shown_in_place_of_an_instruction() -> None:
    model = InLoop(["Six sevens are 42.\n#### 42"])
    found = solved("cot(shots=1)", model, resources=Resources(shots=WORKED))
    assert found.final == "42"
    assert [turn.content for turn in model.asked[0]] == ["What is 2 times 3?", "Two threes are 6.\n#### 6", QUESTION[0].content]


def test_missing_examples_are_told() -> None:
    with pytest.raises(ConfigError, match="0 stand by"):
        solved("cot(shots=1)", ["42"])


def test_a_silent_model_ends_with_a_note() -> None:
    found = solved("cot", [""])
    assert (found.text.strip(), found.final, found.calls, found.status) == ("", "", 2, "answered") and found.note


def test_reasons_are_kept_when_the_budget_ends_before_the_answer() -> None:
    found = solved("cot", ["reasons\nso 42"], budget=Budget(calls=1))
    assert (found.status, found.final, found.note) == ("budget", "so 42", "the reasons alone")
