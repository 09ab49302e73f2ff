from __future__ import annotations

from pathlib import Path

import pytest

from foreword import registry
from foreword.errors import DataError, EvaluationError, RegistryError
from foreword.evaluate import task_source
from foreword.evaluate.task import load_task
from foreword.evaluate.task_source import FOLDER, SourceSettings


@pytest.mark.parametrize("key", registry.names(FOLDER))
def test_every_reference_task_meets_the_contract(key: str) -> None:
    module = registry.find(FOLDER, key)
    assert issubclass(module.Settings, SourceSettings)
    module.Settings()
    assert callable(module.load)


@pytest.mark.parametrize(
    ("spec", "one"),
    [
        ("game24", True),
        ("game24:x/y.jsonl", True),
        ("game24(rows=2)", True),
        ("gsm8k", True),
        ("game", False),
        ("./game24", False),
        ("", False),
    ],
)
def test_which_texts_name_one(spec: str, one: bool) -> None:
    assert task_source.is_one(spec) is one


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("game24:", "nothing after its colon"),
        ("game24(rows=2", "is no task"),
        ("game24(2)", "is no task"),
        ("game24(rows=two)", "`rows`"),
        ("game24(lines=2)", "`lines`: .*Its settings: rows, train_rows, seed, largest"),
    ],
)
def test_what_cannot_be_read_is_refused(spec: str, says: str) -> None:
    with pytest.raises(EvaluationError, match=says):
        load_task(spec)


def test_an_unknown_one_is_refused_with_the_known_ones() -> None:
    with pytest.raises(RegistryError, match="game24"):
        task_source.load("chess")
    with pytest.raises(EvaluationError, match=r"no task `chess`.*With Foreword come: game24"):
        load_task("chess")


def test_training_rows_and_instruction_are_its_own() -> None:
    with pytest.raises(EvaluationError, match="its own training rows"):
        load_task("game24", train="train.jsonl")


def test_a_folder_of_that_name_goes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "game24").mkdir()
    (tmp_path / "game24" / "task.toml").write_text('train = "rows.jsonl"\ndev = "rows.jsonl"\nname = "mine"\n')
    (tmp_path / "game24" / "rows.jsonl").write_text('{"prompt": "a", "completion": "b"}\n')
    monkeypatch.chdir(tmp_path)
    assert load_task("game24").name == "mine"


def test_a_row_that_is_no_object_is_named(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"Puzzles": "6 6 6 6"}\n[1]\n')
    with pytest.raises(DataError, match=r"rows\.jsonl:2 cannot be read"):
        load_task(f"game24:{tmp_path / 'rows.jsonl'}")
