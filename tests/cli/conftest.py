"""The command line in this process: a runner with a home of its own, and a tiny model to run on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Protocol

import pytest
from typer.testing import CliRunner, Result

from foreword.cli._app import app


class RunForeword(Protocol):
    """`foreword(...)`: runs one command and gives its exit code, standard output and standard error."""

    def __call__(self, *arguments: object, input: str | bytes | None = None) -> Result: ...


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """What FOREWORD_HOME is for the commands of one test."""
    return tmp_path / "home"


@pytest.fixture
def foreword(home: Path) -> RunForeword:
    """Runs the command line with an empty home."""

    def run(*arguments: object, input: str | bytes | None = None) -> Result:
        words = [str(argument) for argument in arguments]
        return CliRunner().invoke(app, words, input=input, env={"FOREWORD_HOME": str(home), "COLUMNS": "80"})

    return run


@pytest.fixture(scope="session")
def tiny(tiny_model_folder: Any) -> Path:
    """A tiny random model with a chat template."""
    return tiny_model_folder("llama")


@pytest.fixture
def rows(tmp_path: Path) -> Any:
    """Writes rows to a JSONL file and gives its path."""

    def write(name: str, content: list[dict[str, Any]]) -> Path:
        path = tmp_path / name
        path.write_text("".join(f"{json.dumps(row)}\n" for row in content), encoding="utf-8")
        return path

    return write


@pytest.fixture
def train(rows: Any) -> Path:
    """Thirty rows of an easy task."""
    return rows("train.jsonl", [{"prompt": f"name {number}", "completion": "yes" if number % 2 else "no"} for number in range(30)])


@pytest.fixture
def dev(rows: Any) -> Path:
    """Six other rows of it."""
    return rows("dev.jsonl", [{"prompt": f"name {number}", "completion": "yes" if number % 2 else "no"} for number in range(30, 36)])
