from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from foreword.errors import DataError, EvaluationError
from foreword.evaluate import scorer
from foreword.evaluate.scorer import Outcome
from foreword.evaluate.task import Task, load_task


def row(number: int, wanted: Any) -> str:
    function = {"name": "area", "description": "Area.", "parameters": {"type": "dict", "properties": {"base": {"type": "integer"}}}}
    question = [[{"role": "system", "content": "Be brief."}, {"role": "user", "content": f"The area for base {number}?"}]]
    return json.dumps({"id": f"row_{number}", "question": question, "function": [function], "ground_truth": wanted}) + "\n"


def call(number: int) -> list[dict[str, Any]]:
    return [{"area": {"base": [number], "unit": ["cm", ""], "shape": [{"kind": ["square"], "note": ["", "x"]}]}}]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "simple_dev.jsonl").write_text("".join(row(number, call(number)) for number in range(9)) + row(9, None))
    (tmp_path / "multi_turn_base_dev.jsonl").write_text('{"other": 1}\n')
    return tmp_path


def judged(task: Task, answers: list[str]) -> list[float]:
    rows = task.dev.examples[: len(answers)]
    outcome = Outcome(answers=tuple(answers), references=tuple(row.completions for row in rows), prompts=tuple(row.prompt for row in rows))
    found = scorer.get("tool-call").score(outcome).per_example
    assert found is not None
    return found.tolist()


def test_the_functions_stand_before_the_request(folder: Path) -> None:
    task = load_task(f"tool-use:{folder}")
    assert (len(task.train), len(task.dev), task.primary) == (2, 8, "tool-call")
    example = task.dev.examples[0]
    assert [message.role for message in example.messages] == ["system", "user"]
    assert example.prompt.startswith('Functions:\n{"name": "area"') and "\n\nRequest: The area for base" in example.prompt


def test_training_rows_show_a_right_answer_as_it_is_written(folder: Path) -> None:
    shown = sorted(json.dumps(json.loads(row.completions[0])) for row in load_task(f"tool-use:{folder}").train)
    assert shown == [json.dumps([{"name": "area", "arguments": {"base": base, "shape": {"kind": "square"}}}]) for base in (0, 5)]


def test_dev_rows_bring_what_the_scorer_takes(folder: Path) -> None:
    task = load_task(f"tool-use:{folder}")
    right = []
    for row in task.dev:
        wanted = json.loads(row.completions[0])
        calls = [{"name": "area", "arguments": {"base": wanted[0]["area"]["base"][0], "shape": {"kind": "square"}}}] if wanted else []
        right.append(json.dumps(calls))
    assert judged(task, right) == [1.0] * 8
    assert judged(task, ["no"] * 8).count(0.0) >= 7


def test_one_file_and_limits(folder: Path) -> None:
    task = load_task(f"tool-use:{folder / 'simple_dev.jsonl'}(rows=3, train_rows=1)")
    assert (len(task.train), len(task.dev)) == (1, 3)


@pytest.mark.parametrize(
    ("content", "error", "says"),
    [
        ("", EvaluationError, "has 0 rows"),
        ("{}\n" * 5, DataError, "simple_dev.jsonl:1 is no row of function calls"),
        (row(1, [{"area": 3}]) * 5, DataError, "ground_truth"),
        (row(1, None).replace('"user"', '"assistant"') * 5, DataError, "last turn is not the user"),
    ],
)
def test_rows_of_another_form_are_named(folder: Path, content: str, error: type[Exception], says: str) -> None:
    (folder / "simple_dev.jsonl").write_text(content)
    with pytest.raises(error, match=says):
        load_task(f"tool-use:{folder}")


def test_a_folder_is_needed(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match="needs the folder of its rows"):
        load_task("tool-use")
    with pytest.raises(EvaluationError, match=r"needs a folder of \.jsonl"):
        load_task(f"tool-use:{tmp_path}")


def test_the_shared_rows_can_all_be_read(shared_data: Path) -> None:
    task = load_task(f"tool-use:{shared_data / 'bfcl'}")
    assert len(task.train) + len(task.dev) == 690
