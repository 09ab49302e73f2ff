"""Steps in free text, as models really write them."""

from __future__ import annotations

from foreword.prompting.decomposition import MOST_THOUGHT
from foreword.prompting.decompositions import general

START = general.begin("How many legs have three cats?")


def test_lines_are_read_without_their_bullets() -> None:
    text = "1. One cat has 4 legs.\n\n- Count the cats.\nStep 3: Multiply.\n  * 12 is a number.\nOption 2) Guess."
    found = general.read(START, text, 9)
    assert [str(state) for state in found] == ["One cat has 4 legs.", "Count the cats.", "Multiply.", "12 is a number.", "Guess."]
    assert len(general.read(START, text, 2)) == 2


def test_equal_steps_have_equal_keys() -> None:
    first, second, third = general.read(START, "Count the cats.\n2. count  the cats\nCount the dogs.", 9)
    assert first.key == second.key != third.key


def test_an_answer_on_its_own_line_belongs_to_its_step_and_ends_the_path() -> None:
    (state,) = general.read(START, "Multiply 3 by 4.\nAnswer: 12", 5)
    assert general.finished(state) and general.answer(state) == "Multiply 3 by 4. Answer: 12"
    (open_state,) = general.read(START, "Multiply 3 by 4.", 5)
    assert not general.finished(open_state) and general.answer(open_state) is None


def test_prompts_hold_the_question_and_the_steps_so_far() -> None:
    (state,) = general.read(START, "One cat has 4 legs.", 1)
    for prompt in (general.propose(state, 4), general.sample(state), general.judge(state), general.close(state)):
        assert START.question in prompt and "1. One cat has 4 legs." in prompt
    assert "Write 4 different steps" in general.propose(state, 4)
    assert general.close(START) == START.question


def test_a_step_without_end_is_cut() -> None:
    (state,) = general.read(START, "x" * 1_000_000, 5)
    assert len(str(state)) == MOST_THOUGHT
