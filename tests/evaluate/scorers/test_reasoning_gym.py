from __future__ import annotations

import json

import pytest

from foreword.errors import EvaluationError
from foreword.evaluate.scorers import reasoning_gym

gym = pytest.importorskip("reasoning_gym", reason="the package reasoning-gym is not installed")


def references(problem: str, index: int = 0) -> tuple[str, tuple[str, ...]]:
    entry = gym.create_dataset(problem, size=index + 1, seed=1)[index]
    return entry["answer"], (entry["answer"], json.dumps({"problem": problem, "entry": entry}))


def test_the_packages_verifier_judges_the_whole_or_the_final_answer(outcome) -> None:
    answer, kept = references("chain_sum")
    answers = [answer, f"I add up.\nThe answer is {answer}.", f"Answer: {answer}1", "", "no idea"]
    scores = list(reasoning_gym.score(outcome(answers, [kept] * 5)).per_example)
    assert scores[:2] == [1, 1] and scores[3:] == [0, 0]
    assert 0 < scores[2] < 1, "the verifier's own partial credit for an answer that holds the right one"


def test_a_verifier_that_fails_has_not_found_it_right(outcome) -> None:
    answer, kept = references("game_of_life")
    scores = reasoning_gym.score(outcome([answer, "[[1, 2", "\0"], [kept] * 3)).per_example
    assert scores[0] == 1 and all(score < 1 for score in scores[1:])


@pytest.mark.parametrize("reference", ["4", "{}", "[1]", "null"])
def test_rows_of_other_tasks_are_refused(outcome, reference: str) -> None:
    with pytest.raises(EvaluationError, match="Example 0 has no entry"):
        reasoning_gym.score(outcome(["4"], [["4", reference]]))
