"""The journal: what was written is there again, what was cut off is not, and other work is left alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from foreword.errors import ConfigError
from foreword.prompting.journal import Journal

WORK = {"seed": 0, "model": "m"}


def test_what_goes_in_comes_out(tmp_path: Path):
    path = tmp_path / "runs" / "journal.jsonl"
    journal = Journal(path, work=WORK)
    journal.put({"a": {"n": 1}, "b": {"text": "ä\n\u2028"}})
    journal.put({})
    again = Journal(path, work=dict(reversed(WORK.items())))
    assert len(again) == 2 and again.get("a") == {"n": 1} and again.get("b") == {"text": "ä\n\u2028"} and again.get("c") is None


def test_a_line_that_was_cut_off_is_left_out_and_written_over(tmp_path: Path):
    path = tmp_path / "journal.jsonl"
    Journal(path, work=WORK).put({"a": {"n": 1}, "b": {"n": 2}})
    content = path.read_bytes()
    for cut in range(1, len(content)):
        path.write_bytes(content[:cut])
        journal = Journal(path, work=WORK)
        assert len(journal) in (0, 1, 2) and journal.get("b") is None
        journal.put({"c": {"n": 3}})
        assert Journal(path, work=WORK).get("c") == {"n": 3}


def test_other_work_is_not_touched(tmp_path: Path):
    path = tmp_path / "journal.jsonl"
    Journal(path, work=WORK).put({"a": {"n": 1}})
    before = path.read_bytes()
    with pytest.raises(ConfigError, match="belongs to other work"):
        Journal(path, work={**WORK, "seed": 1})
    assert path.read_bytes() == before


def test_in_a_folder_each_work_has_its_own(tmp_path: Path):
    for seed in (0, 1):
        Journal(tmp_path / "journals", work={"seed": seed}).put({"a": {"n": seed}})
    assert [Journal(tmp_path / "journals", work={"seed": seed}).get("a") for seed in (0, 1)] == [{"n": 0}, {"n": 1}]
    assert len(list((tmp_path / "journals").iterdir())) == 2


def test_a_damaged_line_is_named(tmp_path: Path):
    path = tmp_path / "journal.jsonl"
    Journal(path, work=WORK)
    for line in ("nonsense", "[1]", json.dumps({"value": {}})):
        path.write_text(path.read_text().splitlines()[0] + f"\n{line}\n")
        with pytest.raises(ConfigError, match="is damaged"):
            Journal(path, work=WORK)


def test_without_a_file_it_is_memory_alone():
    journal = Journal(None, work=WORK)
    journal.put({"a": {"n": 1}})
    assert journal.get("a") == {"n": 1}
