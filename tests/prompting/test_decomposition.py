"""How judgements and votes are read, and that every decomposition keeps to its contract."""

from __future__ import annotations

import pytest

from foreword.errors import RegistryError
from foreword.prompting import decomposition
from foreword.prompting.decomposition import WEIGHTS, State, read_value, read_vote
from foreword.prompting.verifiers.game24 import question


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("10 + 14 = 24\nsure", 20.0),
        ("Likely.", 1.0),
        ("It is likely at first, but in the end: IMPOSSIBLE", 0.001),
        ("unlikely", None),
        ("surely", None),
        ("", None),
    ],
)
def test_the_last_word_that_judges_counts(text: str, value: float | None) -> None:
    assert read_value(text) == value


@pytest.mark.parametrize(
    ("text", "vote"),
    [
        ("Choice 1 is fine, 3 is better.\nBest: 2", 1),
        ("The best choice is **3**.", 2),
        ("2", 1),
        ("Best: 4", None),
        ("Best: 0", None),
        ("none of them", None),
    ],
)
def test_a_vote_is_the_number_after_best(text: str, vote: int | None) -> None:
    assert read_vote(text, 3) == vote


def test_weights_rank_the_words() -> None:
    assert WEIGHTS["sure"] > WEIGHTS["likely"] > WEIGHTS["impossible"] > 0


@pytest.mark.parametrize("name", decomposition.names())
def test_a_decomposition_keeps_to_the_contract(name: str) -> None:
    ways, asked = decomposition.get(name), question((4, 9, 10, 13))
    start = ways.begin(asked)
    assert start == State(question=asked, key=start.key, title=start.title) and not ways.finished(start)
    assert ways.answer(start) is None
    assert ways.read(start, "", 3) == [] == ways.read(start, "\n \n", 3)
    states = ways.read(start, "13 - 9 = 4 (left: 4 4 10)\n10 - 4 = 6 (left: 6 9 13)", 3)
    assert len({state.key for state in states}) == 2
    assert all(state.question == asked and len(state.thoughts) == 1 and str(state) == state.thoughts[0] for state in states)
    prompts = [ways.propose(start, 3), ways.sample(start), ways.judge(states[0]), ways.vote(states), ways.close(states[0])]
    assert len(set(prompts)) == len(prompts) and all(prompts)
    assert all(str(state) in ways.vote(states) for state in states)


def test_an_unknown_one_lists_those_that_exist() -> None:
    with pytest.raises(RegistryError, match=r"`chess` among decompositions. Known: .*game24, general"):
        decomposition.get("chess")
