from __future__ import annotations

from pathlib import Path

import pytest

from foreword.errors import DataError, EvaluationError
from foreword.evaluate import scorer
from foreword.evaluate.scorer import Outcome
from foreword.evaluate.task import load_task
from foreword.evaluate.tasks.game24 import Settings, load, solution
from foreword.prompting.verifiers.game24 import judge, numbers_in


@pytest.mark.parametrize("numbers", [(4, 9, 10, 13), (8, 3, 8, 3), (1, 5, 5, 5), (6, 6, 6, 6), (3, 3, 7, 7), (24, 1, 1, 0)])
def test_a_solution_is_one_even_through_fractions(numbers: tuple[int, ...]) -> None:
    found = solution(numbers)
    assert found is not None and judge(numbers, f"Answer: {found}").passed


@pytest.mark.parametrize("numbers", [(1, 1, 1, 1), (1, 1, 1, 2), (0, 0, 0, 5)])
def test_what_cannot_be_solved_has_no_solution(numbers: tuple[int, ...]) -> None:
    assert solution(numbers) is None


def test_puzzles_are_the_seeds_and_training_ones_are_others() -> None:
    task = load_task("game24(rows=12, train_rows=5, seed=3)")
    again = load_task("game24(rows=12, train_rows=5, seed=3)")
    assert (task.dev.sha256, task.train.sha256) == (again.dev.sha256, again.train.sha256)
    assert task.dev.sha256 != load_task("game24(rows=12, train_rows=5)").dev.sha256
    puzzles = [numbers_in(example.prompt) for example in (*task.dev, *task.train)]
    assert len({tuple(sorted(puzzle)) for puzzle in puzzles}) == 17
    assert (task.verifier, task.tools, task.primary) == ("game24", ("calculator",), "game24")


def test_the_wanted_answers_score() -> None:
    rows = load_task("game24(rows=6)").dev.examples
    outcome = Outcome(
        answers=tuple(row.completions[0] for row in rows),
        references=tuple(row.completions for row in rows),
        prompts=tuple(row.prompt for row in rows),
    )
    assert scorer.get("game24").score(outcome).value == 1


def test_a_file_of_puzzles(tmp_path: Path) -> None:
    path = tmp_path / "puzzles.jsonl"
    path.write_text('{"Puzzles": "1 1 4 6", "Rank": "1"}\n{"Puzzles": "6 6 6 6"}\n{"Puzzles": "4 9 10 13"}\n')
    task = load_task(f"game24:{path}(train_rows=2)")
    assert [numbers_in(example.prompt) for example in task.dev] == [(1, 1, 4, 6), (6, 6, 6, 6), (4, 9, 10, 13)]
    assert len(load_task(f"game24:{path}(rows=2, train_rows=2)").dev) == 2
    path.write_text('{"Puzzles": "1 1 4"}\n')
    with pytest.raises(DataError, match=r"puzzles.jsonl:1 has no `Puzzles` with 4 whole numbers"):
        load(str(path), Settings())


def test_more_puzzles_than_there_are_are_refused() -> None:
    with pytest.raises(EvaluationError, match="too few puzzles of numbers up to 6"):
        load(None, Settings(rows=300, largest=6))
