"""New prompts: sound, never the same twice, and the same again with the same seed."""

from __future__ import annotations

import json
from typing import Any

import labelling_script as task
from foreword.prompting.candidates import EXAMPLES, INSTRUCTION, STRATEGY, Candidate, Space, space
from foreword.prompting.proposing import Proposer

RECORDS: list[dict[str, Any]] = [{"success": False, "wanted": ("odd",), "input": "number 1", "answer": "even", "feedback": "Wrong."}]


def made(system: str = "You are a clerk. Please classify the following number. Answer now.", **options: Any) -> Space:
    return space(task.prompt(system), task.rows(8), **{"strategies": ("zero-shot",), "most_examples": 4, **options})


def walk(proposer: Proposer, candidate: Candidate, steps: int, component: str) -> list[Candidate]:
    seen = []
    for _ in range(steps):
        change = proposer(candidate, {component: RECORDS}, [component])
        if not change:
            break
        candidate = candidate | change
        seen.append(candidate)
    return seen


def test_every_proposal_is_sound_and_new():
    found = made()
    for component in (EXAMPLES, INSTRUCTION):
        seen = walk(Proposer(found, seed=0, labels=task.LABELS), found.start, 60, component)
        assert len(seen) == 60 and all(found.allows(candidate) for candidate in seen)
        assert len({json.dumps(candidate, sort_keys=True) for candidate in seen} | {json.dumps(found.start, sort_keys=True)}) == 61


def test_the_same_seed_proposes_the_same():
    found = made()
    runs = [walk(Proposer(found, seed=seed, labels=task.LABELS), found.start, 20, EXAMPLES) for seed in (0, 0, 1)]
    assert runs[0] == runs[1] != runs[2]


def test_a_prompt_without_examples_begins_with_some_of_every_label():
    found = made()
    first = walk(Proposer(found, seed=3, labels=task.LABELS), found.start, 1, EXAMPLES)[0]
    assert {shot.assistant for shot in found.template(first).examples} == set(task.LABELS)


def test_variables_survive_every_change_of_the_instruction():
    hand = task.prompt("You must be {{ tone }}. Please classify the message.", variables={"tone": "kind"})
    found = space(hand, [], strategies=("zero-shot",), most_examples=0)
    seen = walk(Proposer(found, seed=0, labels=("a{b}", "c")), found.start, 40, INSTRUCTION)
    assert len(seen) == 40 and all("{{ tone }}" in candidate[INSTRUCTION] for candidate in seen)
    assert any("a(b) or c" in candidate[INSTRUCTION] for candidate in seen)


def test_nothing_is_left_to_propose():
    found = space(task.prompt(""), [], strategies=("zero-shot", "zero-shot(instruction=Think)"), most_examples=0)
    proposer = Proposer(found, seed=0)
    change = proposer(found.start, {}, [STRATEGY])
    assert change == {STRATEGY: "zero-shot(instruction=Think)"}
    again = proposer(found.start, {}, [STRATEGY])
    assert INSTRUCTION in again, "there is no other strategy, so the instruction is changed"
    while proposer(found.start, {}, [STRATEGY]):
        pass
    assert proposer(found.start, {}, [STRATEGY]) == {}


def test_a_model_s_own_instructions_are_taken_where_they_are_sound():
    shown = []

    def reflect(instruction: str, records: Any) -> str:
        shown.append((instruction, records))
        return "Use {{ something }}" if len(shown) % 2 else f"Better still {len(shown)}"

    found = made("Classify.")
    seen = walk(Proposer(found, seed=0, reflect=reflect), found.start, 10, INSTRUCTION)
    texts = [candidate[INSTRUCTION] for candidate in seen]
    assert any(text.startswith("Better still") for text in texts) and not any("something" in text for text in texts)
    assert shown[0] == (shown[0][0], RECORDS)
