"""Steps of the Game of 24: what is sound is taken, and three of them spell out an expression."""

from __future__ import annotations

import random
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foreword.engines import scripted
from foreword.errors import StrategyError
from foreword.prompting.arithmetic import compute
from foreword.prompting.decompositions import game24
from foreword.prompting.verifiers.game24 import numbers_in, question
from foreword.types import Message, Sampling

START = game24.begin(question((4, 9, 10, 13)))


@pytest.mark.parametrize(
    ("line", "reads"),
    [
        ("13 - 9 = 4 (left: 4 4 10)", "13 - 9 = 4 (left: 4 4 10)"),
        ("1. 9 × 4 = 36", "9 * 4 = 36 (left: 10 13 36)"),
        ("- First, 10 ÷ 4 = 2.5, which leaves 2.5 9 13", "10 / 4 = 5/2 (left: 5/2 9 13)"),
        ("4 / 10 = 2/5 (left: a lie)", "4 / 10 = 2/5 (left: 2/5 9 13)"),
        ("9 - 10 = -1", "9 - 10 = -1 (left: -1 4 13)"),
    ],
)
def test_sound_steps_are_taken_and_what_is_left_is_computed(line: str, reads: str) -> None:
    assert [str(state) for state in game24.read(START, line, 1)] == [reads]


@pytest.mark.parametrize(
    "line",
    [
        "4 + 9 = 14 (left: 10 13 14)",
        "4 + 4 = 8",
        "5 + 9 = 14",
        "4 + 9 + 10 = 23",
        "4 / 0 = 0",
        "1/0 + 4 = 4",
        "I would add them.",
        "24",
        "9" * 10_000,
    ],
)
def test_unsound_steps_are_left_out(line: str) -> None:
    assert game24.read(START, line, 1) == []


def test_states_with_the_same_numbers_left_are_the_same() -> None:
    first, second = game24.read(START, "13 - 9 = 4\n13 - 9 = 4 (left: 10 4 4)", 5)
    assert first.key == second.key == (Fraction(4), Fraction(4), Fraction(10))


def test_prompts_show_what_is_left_and_not_what_was_given() -> None:
    (state,) = game24.read(START, "4 / 9 = 4/9", 1)
    for prompt in (game24.propose(state, 5), game24.sample(state), game24.judge(state)):
        assert "Numbers left: 4/9 10 13" in prompt and "4 9 10 13" not in prompt
    assert numbers_in(game24.close(state)) == (4, 9, 10, 13)


def test_a_question_without_numbers_is_refused() -> None:
    with pytest.raises(StrategyError, match=r"Numbers: 4 9 10 13.*`general`"):
        game24.begin("What is the capital of Peru?")


@given(numbers=st.lists(st.integers(1, 13), min_size=1, max_size=4), seed=st.integers(0, 2**20))
@settings(max_examples=80, deadline=None)
def test_any_path_to_its_end_spells_out_an_expression_of_its_value_and_numbers(numbers: list[int], seed: int) -> None:
    draw, state, engine = random.Random(seed), game24.begin(question(numbers)), scripted.load("arithmetic")
    while not game24.finished(state):
        prompt = Message(role="user", content=game24.propose(state, 5))
        (proposals,) = engine.generate([[prompt]], sampling=Sampling(max_new_tokens=10_000))
        state = draw.choice(game24.read(state, proposals.text, 5))
    answer = game24.answer(state)
    assert answer is not None
    expression, _, value = answer.rpartition("Answer: ")[2].partition(" = ")
    found = compute(expression)
    assert sorted(found.numbers) == sorted(numbers)
    assert str(found.value) == value == str(state.key[0])
