"""Hugging Face data: the missing extra is named; with it, local folders and Arrow tables are read."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import pytest

from foreword.data.hub import arrow_rows, label_names
from foreword.data.reading import read
from foreword.errors import DataError

installed = importlib.util.find_spec("datasets") is not None
needs_datasets = pytest.mark.skipif(not installed, reason="the `datasets` extra is not installed")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    root = tmp_path / "mini"
    root.mkdir()
    for split, count in (("train", 3), ("test", 2)):
        rows = [{"text": f"{split} {index}", "label": index % 2} for index in range(count)]
        (root / f"{split}.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return root


def test_the_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "datasets", None)  # makes the import fail, installed or not
    with pytest.raises(DataError, match=r"pip install foreword\[datasets\]"):
        read("hf:some/name")


def test_a_name_is_needed():
    with pytest.raises(DataError, match="names no data set"):
        read("hf:")


@needs_datasets
def test_a_local_folder_and_its_splits(folder: Path):
    data = read(f"hf:{folder}")
    assert [row.prompt for row in data] == ["train 0", "train 1", "train 2"]
    assert (data.labels, [row.line for row in data]) == (("0", "1"), [1, 2, 3])
    assert len(read(f"hf:{folder}", split="test")) == 2


@needs_datasets
@pytest.mark.parametrize(("suffix", "split"), [("", "validation"), (":nosuch", None)])
def test_an_unknown_split_or_configuration(folder: Path, suffix: str, split: str | None):
    with pytest.raises(DataError, match="cannot be loaded"):
        read(f"hf:{folder}{suffix}", split=split)


@needs_datasets
def test_class_labels_bring_their_names():
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["ham", "spam"])})
    table = datasets.Dataset.from_dict({"text": ["a", "b"], "label": [1, 0]}, features=features)
    assert label_names(table) == ("ham", "spam")
    assert [row.fields for row in arrow_rows(table)] == [{"text": "a", "label": 1}, {"text": "b", "label": 0}]
