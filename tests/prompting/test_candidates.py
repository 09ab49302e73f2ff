"""Prompts as texts by name: there and back, and what may not be a candidate."""

from __future__ import annotations

import json

import pytest

import labelling_script as task
from foreword.errors import RegistryError
from foreword.prompting.candidates import EXAMPLES, INSTRUCTION, STRATEGY, Space, chosen, key_of, space
from foreword.prompting.strategy import get
from foreword.prompting.template import Shot


def made(**options: object) -> Space:
    hand = task.prompt("Be {{ tone }}.", variables={"tone": "kind"}, examples=[{"user": "number 0", "assistant": "even"}])
    settings: dict[str, object] = {"strategies": ("zero-shot",), "most_examples": 3, **options}
    return space(hand, task.rows(4), **settings)  # type: ignore[arg-type]


def test_the_start_is_the_prompt_itself():
    found = made()
    assert found.start == {EXAMPLES: "[0]", INSTRUCTION: "Be {{ tone }}."}
    assert found.template(found.start) == found.hand
    assert str(found.strategy(found.start)) == "zero-shot"


def test_the_pool_has_the_prompt_s_own_examples_first_and_none_twice():
    assert [shot.user for shot in made().pool] == ["number 0", "number 1", "number 2", "number 3"]


def test_examples_in_any_order():
    found = made()
    template = found.template({**found.start, EXAMPLES: "[3, 1]"})
    assert template.examples == (Shot(user="number 3", assistant="odd"), Shot(user="number 1", assistant="odd"))


def test_a_strategy_is_a_part_where_there_is_a_choice():
    found = made(strategies=("zero-shot", "zero-shot(instruction=Think)"))
    assert found.start[STRATEGY] == "zero-shot"
    assert str(found.strategy({**found.start, STRATEGY: "zero-shot(instruction=Think)"})) == "zero-shot(instruction=Think)"
    with pytest.raises(RegistryError):
        made(strategies=("no-such",))


def test_an_instruction_can_come_and_go():
    bare = space(task.prompt(""), [], strategies=("zero-shot",), most_examples=2)
    assert bare.instruction == "" and bare.template(bare.start) == bare.hand
    assert [turn.role for turn in bare.template({**bare.start, INSTRUCTION: "Help."}).messages] == ["system", "user"]
    plain = space(task.prompt("Help."), [], strategies=("zero-shot",), most_examples=2)
    assert [turn.role for turn in plain.template({**plain.start, INSTRUCTION: " "}).messages] == ["user"]


@pytest.mark.parametrize(
    "change",
    [
        {INSTRUCTION: "Be kind."},
        {INSTRUCTION: "Be {{ tone }} to {{ everyone }}."},
        {INSTRUCTION: "Be {{ tone."},
        {INSTRUCTION: ""},
        {EXAMPLES: "[0, 1, 2, 3]"},
        {EXAMPLES: "[1, 1]"},
    ],
)
def test_what_is_no_candidate(change: dict[str, str]):
    found = made()
    assert found.allows(found.start) and not found.allows(found.start | change)


def test_keys_tell_what_the_model_is_given():
    found = made()
    other = {**found.start, EXAMPLES: json.dumps([1])}
    assert found.key(found.start) != found.key(other) and chosen(other) == [1]
    known = found.hand.model_copy(update={"name": "other", "evidence": {"made_by": "me"}})
    assert key_of(known, get("zero-shot")) == found.key(found.start)
