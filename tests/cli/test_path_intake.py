"""`foreword path train-intake`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from foreword.cli._console import ForewordGroup
from foreword.cli._path_intake import train_intake

pytest.importorskip("wordllama")

LINES = {
    "billing": ["refund my invoice", "the invoice is wrong", "I was charged twice", "when is my bill due", "pay with another card"],
    "login": ["I forgot my password", "cannot sign in", "reset my account password", "two factor code does not arrive", "locked out"],
}


@pytest.fixture
def app() -> typer.Typer:
    app = typer.Typer(cls=ForewordGroup)
    app.callback()(lambda: None)
    app.command("train-intake")(train_intake)
    return app


@pytest.fixture
def lines(tmp_path: Path) -> Path:
    path = tmp_path / "lines.jsonl"
    path.write_text("".join(json.dumps({"text": text, "label": label}) + "\n" for label, texts in LINES.items() for text in texts))
    return path


def test_lines_become_a_model(app: typer.Typer, lines: Path, tmp_path: Path) -> None:
    out = tmp_path / "intake.json"
    done = CliRunner().invoke(app, ["train-intake", "--data", str(lines), "-o", str(out), "--json"])
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert told["labels"] == {"billing": 5, "login": 5} and told["nearest_accuracy"] >= 0.7
    assert json.loads(out.read_text())["embedder"] == told["embedder"]


def test_it_is_told_how_well_each_type_is_recognised(app: typer.Typer, lines: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["train-intake", "--data", str(lines), "-o", str(tmp_path / "intake.json")])
    assert done.exit_code == 0 and "billing" in done.stdout and "of 10 lines get their type" in done.output


@pytest.mark.parametrize("fault", ["label", "shape", "missing"])
def test_what_cannot_be_used_is_named(app: typer.Typer, lines: Path, tmp_path: Path, fault: str) -> None:
    config = tmp_path / "foreword.toml"
    config.write_text('[models.a]\nurl = "http://localhost:1/v1"\nmodel = "a"\n[tasks.billing]\n')
    arguments = ["train-intake", "--data", str(lines), "-o", str(tmp_path / "x.json")]
    if fault == "label":
        arguments += ["--config", str(config)]
    elif fault == "shape":
        lines.write_text('{"prompt": "a", "completion": "b"}\n')
    else:
        lines.unlink()
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 2 and not (tmp_path / "x.json").exists()
    assert {"label": "`login` is no task type", "shape": "has no labels", "missing": "lines.jsonl"}[fault] in " ".join(done.output.split())
