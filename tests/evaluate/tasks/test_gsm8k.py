from __future__ import annotations

import json
from pathlib import Path

import pytest

from foreword.errors import DataError, EvaluationError
from foreword.evaluate.task import load_task


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    def row(number: int) -> str:
        return json.dumps(
            {"question": f" What is {number} + 1? ", "answer": f"It is <<{number}+1={number + 1}>>{number + 1}.\n#### {number + 1}"}
        )

    (tmp_path / "train.jsonl").write_text("".join(f"{row(number)}\n" for number in range(20)))
    (tmp_path / "dev.jsonl").write_text("".join(f"{row(number)}\n" for number in range(20, 26)))
    return tmp_path


def test_rows_keep_the_way_and_lose_the_calculators_marks(folder: Path) -> None:
    task = load_task(f"gsm8k:{folder}(rows=4, train_rows=8)")
    assert (len(task.dev), len(task.train), task.primary, task.tools) == (4, 8, "number", ("calculator",))
    assert task.dev.examples[0].prompt == "What is 20 + 1?"
    assert task.dev.examples[0].completions == ("It is 21.\n#### 21",)
    assert len(load_task(f"gsm8k:{folder}").dev) == 6


def test_what_is_missing_is_named(folder: Path) -> None:
    with pytest.raises(EvaluationError, match="needs the folder of its data"):
        load_task("gsm8k")
    (folder / "train.jsonl").unlink()
    with pytest.raises(EvaluationError, match=r"needs .*train.jsonl"):
        load_task(f"gsm8k:{folder}")
    (folder / "train.jsonl").write_text('{"question": "?", "answer": "no mark"}\n')
    with pytest.raises(DataError, match=r"train.jsonl:1 needs `question`"):
        load_task(f"gsm8k:{folder}")


def test_the_shared_rows(shared_data: Path) -> None:
    task = load_task(f"gsm8k:{shared_data / 'gsm8k'}(rows=5, train_rows=5)")
    assert all("####" in row.completions[0] and "<<" not in row.completions[0] for row in task.train)
