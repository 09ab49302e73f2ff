"""`foreword compare`: the table, the files, failures as rows, and bad input."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from foreword.api import compile_text, load
from foreword.cli._comparison import show_answers, show_comparison
from foreword.cli.compare import prepare, with_all
from foreword.errors import ModelError
from foreword.evaluate.comparison import Comparison
from foreword.evaluate.task import load_task
from foreword.prefix.store import PrefixStore


@pytest.fixture
def task(rows: Any, train: Path, dev: Path, tmp_path: Path) -> Path:
    lines = ['train = "train.jsonl"', 'dev = "dev.jsonl"', 'scorers = ["exact-match"]', 'primary = "exact-match"', "max_new_tokens = 4"]
    (tmp_path / "task.toml").write_text("\n".join([*lines, 'success = { scorer = "exact-match", at_least = 1.0 }', 'name = "easy"']))
    return tmp_path


@pytest.mark.slow
def test_the_table_and_its_files(foreword: Any, task: Path, tiny: Path, home: Path):
    PrefixStore(home / "prefixes").publish(compile_text(load(str(tiny)), "The Eagle.", name="eagle"))
    strategies = "zero-shot, few-shot:29, prefix:eagle"
    files = ("--html", task / "out/x.html", "--markdown", task / "out/x.md")
    prices = ("--price-per-hour", 0.4, "--currency", "EUR")
    result = foreword("compare", "--task", task, "--strategies", strategies, "--model", tiny, "--limit", 4, *prices, *files, "--json")
    comparison = Comparison.model_validate_json(result.stdout)
    assert [row.contender for row in comparison.rows] == ["zero-shot", "few-shot:29", "prefix:eagle"]
    assert (comparison.dev_rows, comparison.reference) == (4, "prefix:eagle")
    failed = comparison.rows[1].failed
    assert failed is not None and "Ask for fewer examples" in failed
    assert result.exit_code == 1, "a strategy that failed shows in the exit code"
    assert "1/3 zero-shot: answering" in result.stderr and f"Wrote {task / 'out/x.html'}" in result.stderr
    assert "| zero-shot |" in (task / "out/x.md").read_text() and "<table" in (task / "out/x.html").read_text()

    wide, narrow = shown(comparison, 220), shown(comparison, 90)
    for text in ("prefix:eagle", "cost/success", "memory", "few-shot:29 failed: 29 examples", "0.4 EUR per machine-hour"):
        assert text in wide
    assert "Left out for" not in wide
    assert "Left out for want of space: latency, trained, artifact, training, memory" in " ".join(narrow.split())
    answers = io.StringIO()
    show_answers(comparison, Console(file=answers, width=100, markup=False, emoji=False))
    assert "wanted" in answers.getvalue() and "prefix:eagle" in answers.getvalue()


def shown(comparison: Comparison, width: int) -> str:
    file = io.StringIO()
    show_comparison(comparison, Console(file=file, width=width, markup=False, emoji=False))
    return file.getvalue()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--task", "nowhere"), "There is no task `nowhere`"),
        (("--strategies", "telepathy"), "No `telepathy` among contenders"),
        (("--strategies", "zero-shot,zero-shot"), "is named twice"),
        (("--strategies", " , "), "no contender was named"),
        (("--strategies", "few-shot:many"), "needs a whole number of examples"),
        (("--strategies", "prefix:nope"), "No prefix is named `nope`"),
        (("--budget", "0s"), "is no time above zero"),
        (("--limit", "0"), "--limit"),
        (("--strategies", "cot(steps=9)"), "Strategy `cot` cannot be set so"),
        (("--models", "smollm2,smollm2"), "each model once"),
        (("--budget-calls", "0"), "--budget-calls"),
        (("--price-per-million-input", "1"), "`output_per_million` is missing"),
        (("--device", "toaster"), "There is no device `toaster`"),
        (("--train", "train.jsonl"), "says itself what its training rows"),
        (("--model", "nonesuch"), "No model `nonesuch`"),
    ],
)
def test_bad_options(foreword: Any, task: Path, tiny: Path, options: tuple[str, ...], message: str):
    chosen = {"--task": str(task), "--model": str(tiny), "--strategies": "zero-shot"} | dict(zip(options[::2], options[1::2], strict=True))
    result = foreword("compare", *(word for pair in chosen.items() for word in pair))
    assert result.exit_code == 2
    assert message in result.stderr and result.stdout == ""


def test_dev_rows_alone_need_training_rows(foreword: Any, dev: Path, tiny: Path):
    result = foreword("compare", "--task", dev, "--model", tiny)
    assert result.exit_code == 2 and "Give the training rows as well" in result.stderr


@pytest.mark.slow
def test_a_report_that_cannot_be_written_comes_after_the_table(foreword: Any, task: Path, tiny: Path):
    (task / "file").write_text("in the way")
    words = ("--task", task, "--strategies", "zero-shot", "--model", tiny, "--limit", 2)
    result = foreword("compare", *words, "--html", task / "file" / "x.html")
    assert result.exit_code == 2
    assert "zero-shot" in result.stdout and "cannot be written" in result.stderr
    assert json.loads(foreword("compare", *words, "--json").stdout)["dev_rows"] == 2


@pytest.mark.slow
def test_strategies_on_a_reference_task(foreword: Any, tmp_path: Path):
    words = ("--task", "game24(rows=3, train_rows=3)", "--models", "scripted:arithmetic", "--trace", tmp_path / "traces")
    strategies = "zero-shot, self-consistency(n=3)"
    result = foreword("compare", *words, "--strategies", strategies, "--html", tmp_path / "x.html", "--json")
    assert result.exit_code == 0, result.stderr
    comparison = Comparison.model_validate_json(result.stdout)
    assert [row.contender for row in comparison.rows] == ["zero-shot", "self-consistency(n=3)"]
    assert [row.strategy for row in comparison.rows] == [False, True]
    assert len(list((tmp_path / "traces").rglob("*.jsonl"))) == 3
    wide = shown(comparison, 250)
    for title in ("first", "any of k", "calls", "tokens", "ended", "cost/success", "all answered"):
        assert title in wide
    assert "Training budget" not in wide
    assert "cost per success" in (tmp_path / "x.html").read_text()


def test_all_is_what_needs_no_training(tmp_path: Path):
    task = load_task("game24(rows=2, train_rows=2)")
    names = with_all(task, ["cot", "all", "prefix:x"], 0)
    assert names[0] == "cot" and names[-1] == "prefix:x" and names.count("cot") == 1
    assert {"zero-shot", "few-shot:2", "tot"} <= set(names)
    assert with_all(task, ["lora"], 0) == ["lora"]


def test_only_the_reference_engine_converts(tmp_path: Path):
    prepare("scripted:arithmetic")
    with pytest.raises(ModelError):
        prepare(str(tmp_path / "nowhere"))
