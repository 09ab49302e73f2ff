"""`foreword path audit`."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from foreword.cli._console import ForewordGroup
from foreword.cli._path_audit import audit
from foreword.store.database import open_database
from foreword.telemetry.capture import Capture, Captured


@pytest.fixture
def app() -> typer.Typer:
    app = typer.Typer(cls=ForewordGroup)
    app.callback()(lambda: None)
    app.command("audit")(audit)
    return app


@pytest.fixture
def captures(tmp_path: Path) -> Path:
    path = tmp_path / "captures.sqlite"
    capture = Capture(open_database(path), redact=str)
    for number in range(4):
        made = Captured(
            id=str(number),
            at=datetime(2026, 3, 2 + number, tzinfo=UTC),
            tenant="t",
            task="support" if number else "other",
            status="answered",
            messages=[{"role": "system", "content": "Mention the warranty."}, {"role": "user", "content": "How long?"}],
            tools=[{"type": "function", "function": {"name": "refund"}}],
            sources=(("a.md#1", "Thirty days."),),
            answer="The warranty: thirty days.",
        )
        capture.take(lambda made=made: made)
    capture.flush()
    capture.close()
    return path


def test_the_report_names_sentences_tools_passages_and_weeks(app: typer.Typer, captures: Path) -> None:
    done = CliRunner().invoke(app, ["audit", "--from", str(captures)])
    assert done.exit_code == 0, done.output
    for part in ("Mention the warranty.", "refund", "a.md#1", "2026-W10", "4 captured requests"):
        assert part in done.output


def test_as_json_by_task_and_day(app: typer.Typer, captures: Path) -> None:
    done = CliRunner().invoke(app, ["audit", "--from", str(captures), "--task", "support", "--since", "2026-03-04", "--json"])
    told = json.loads(done.stdout)
    assert told["requests"] == 2 and told["tools"][0]["offered"] == 2 and told["sentences"][0]["used"] == 1.0


def test_the_configuration_says_where_captures_are(app: typer.Typer, captures: Path, tmp_path: Path) -> None:
    config = tmp_path / "foreword.toml"
    models = '[models.a]\nurl = "http://localhost:1/v1"\nmodel = "a"\n'
    config.write_text(f'{models}[store]\ncapture = "{captures}"\n')
    assert json.loads(CliRunner().invoke(app, ["audit", "--config", str(config), "--json"]).stdout)["requests"] == 4
    config.write_text(models)
    done = CliRunner().invoke(app, ["audit", "--config", str(config)])
    assert done.exit_code == 2 and "captures nothing" in done.output


def test_captures_that_are_not_there_are_named_and_not_made(app: typer.Typer, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["audit", "--from", str(tmp_path / "none.sqlite")])
    assert done.exit_code == 2 and "There are no captures" in done.output and not (tmp_path / "none.sqlite").exists()
