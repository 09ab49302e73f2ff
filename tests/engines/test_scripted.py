"""The engine that a function speaks for, and the script that knows arithmetic."""

from __future__ import annotations

from fractions import Fraction

import pytest

from foreword import registry
from foreword.engine import Generates
from foreword.engines.scripted import ScriptedEngine, load
from foreword.errors import ModelError
from foreword.prompting import decomposition
from foreword.prompting.verifiers import game24
from foreword.types import Message, Sampling


def say(engine: ScriptedEngine, words: str, **sampling: object) -> str:
    return engine.generate([[Message(role="user", content=words)]], sampling=Sampling(**{"max_new_tokens": 1000, **sampling}))[0].text  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def arithmetic() -> ScriptedEngine:
    return load("arithmetic")


def start(*numbers: int) -> decomposition.State:
    return decomposition.get("game24").begin(game24.question(numbers))


def test_it_is_an_engine_and_counts_words() -> None:
    engine = ScriptedEngine(lambda conversation, sampling: f"seed {sampling.seed} of {len(conversation)}", name="mine", window=7)
    assert isinstance(engine, Generates) and (engine.name, engine.window) == ("mine", 7)
    assert registry.find("foreword.engines", "scripted").load("arithmetic").name == "arithmetic"
    told: list[int] = []
    first, second = engine.generate([[Message(role="user", content="one two")]] * 2, sampling=Sampling(seed=3), progress=told.append)
    assert first.text == second.text == "seed 3 of 1"
    assert (first.usage.prompt_tokens, first.usage.completion_tokens, first.finish_reason) == (2, 4, "stop")
    assert told == [1, 1] and engine.calls == 2
    assert "".join(engine.stream([Message(role="user", content="x")])) == "seed 0 of 1"


def test_answers_end_at_a_stop_text_and_at_their_most_tokens() -> None:
    engine = ScriptedEngine(lambda conversation, sampling: "one two STOP three")
    assert say(engine, "x", stop=("STOP",)) == "one two "
    cut = engine.generate([[Message(role="user", content="x")]], sampling=Sampling(max_new_tokens=2))[0]
    assert (cut.text, cut.finish_reason, cut.usage.completion_tokens) == ("one two", "length", 2)


def test_an_unknown_script_lists_those_that_exist() -> None:
    with pytest.raises(ModelError, match=r"no script `poetry`.*arithmetic"):
        load("poetry")


def test_proposals_are_all_next_steps_in_the_papers_format_and_all_are_read(arithmetic: ScriptedEngine) -> None:
    ways, state = decomposition.get("game24"), start(4, 5, 6, 10)
    lines = say(arithmetic, ways.propose(state, 5)).splitlines()
    assert "4 + 5 = 9 (left: 6 9 10)" in lines and "4 / 6 = 2/3 (left: 2/3 5 10)" in lines
    assert len(lines) == len(set(lines)) == 6 * 5
    assert len(ways.read(state, "\n".join(lines), 5)) == len(lines)
    assert len(say(arithmetic, ways.propose(start(6, 6, 6, 6), 5)).splitlines()) == 4


def test_one_step_depends_on_the_seed_alone(arithmetic: ScriptedEngine) -> None:
    ways, state = decomposition.get("game24"), start(4, 5, 6, 10)
    drawn = [say(arithmetic, ways.sample(state), seed=seed) for seed in range(12)]
    assert drawn == [say(arithmetic, ways.sample(state), seed=seed) for seed in range(12)]
    assert len(set(drawn)) > 4 and all(len(ways.read(state, text, 1)) == 1 for text in drawn)


@pytest.mark.parametrize(
    ("left", "word"),
    [
        ((4, 6), "sure"),
        ((11, 12), "impossible"),
        ((3, 3, 8, 8), "sure"),
        ((1, 1, 1, 1), "impossible"),
        ((24,), "sure"),
        ((23,), "impossible"),
    ],
)
def test_judgements_are_exact(arithmetic: ScriptedEngine, left: tuple[int, ...], word: str) -> None:
    state = decomposition.State(question="", key=tuple(map(Fraction, left)))
    text = say(arithmetic, decomposition.get("game24").judge(state))
    assert text.endswith(f"\n{word}") and decomposition.read_value(text) == decomposition.WEIGHTS[word]


def test_differences_below_zero_are_tried_where_a_number_is_below_zero(arithmetic: ScriptedEngine) -> None:
    state = decomposition.State(question="", key=(Fraction(-2), Fraction(2), Fraction(14)))
    assert say(arithmetic, decomposition.get("game24").judge(state)).endswith("sure")


def test_votes_go_to_a_step_from_which_24_can_be_made(arithmetic: ScriptedEngine) -> None:
    ways = decomposition.get("game24")
    states = ways.read(start(4, 9, 10, 13), "4 + 9 = 13\n10 - 4 = 6\n9 - 4 = 5", 5)
    assert decomposition.read_vote(say(arithmetic, ways.vote(states)), 3) == 1


@pytest.mark.parametrize("numbers", [(4, 9, 10, 13), (3, 3, 8, 8), (1, 5, 5, 5)])
def test_it_solves_the_puzzle_outright_and_from_given_steps(arithmetic: ScriptedEngine, numbers: tuple[int, ...]) -> None:
    ways, state = decomposition.get("game24"), start(*numbers)
    for prompt in (game24.question(numbers), ways.close(state)):
        assert game24.judge(numbers, say(arithmetic, prompt)).passed


def test_it_goes_on_from_the_steps_that_it_is_given(arithmetic: ScriptedEngine) -> None:
    ways = decomposition.get("game24")
    (state,) = ways.read(start(4, 9, 10, 13), "13 - 9 = 4", 1)
    text = say(arithmetic, ways.close(state))
    assert "(13 - 9)" in text and game24.judge((4, 9, 10, 13), text).passed


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("What is (3 + 4) * 5 - 1/2?", "Answer: 69/2"),
        ("How much is 6 * 7", "Answer: 42"),
        ("What is the capital of Peru?", "I only know arithmetic."),
        ("Divide: 3 / (2 - 2)", "I only know arithmetic."),
        ("(" * 50_000, "I only know arithmetic."),
        ("Numbers: 1 1 1 1", "24 cannot be made of 1 1 1 1."),
        ("Numbers: 1 2 3 4 5 6 7 8 9", "I only know arithmetic."),
        ("Numbers left: 1/0 3\nNext steps:", "I only know arithmetic."),
    ],
)
def test_it_computes_what_it_can_and_says_so_where_it_cannot(arithmetic: ScriptedEngine, words: str, said: str) -> None:
    assert say(arithmetic, words) == said
