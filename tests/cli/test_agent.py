"""`foreword agent` in this process, and its server as a process of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

from foreword.agent.facts import Provenance
from foreword.agent.long_memory import LongMemory
from foreword.cli import agent
from foreword.cli._console import ForewordGroup

SCRIPTED = ("--engine", "scripted", "--model", "arithmetic")


@pytest.fixture
def run(home: Path) -> Any:
    """Runs `foreword agent ...`."""
    app = typer.Typer(cls=ForewordGroup, pretty_exceptions_enable=False)
    app.add_typer(agent.app, name="agent")

    @app.callback()
    def root() -> None:
        pass

    def invoke(*arguments: object, **options: Any) -> Result:
        words = ["agent", *(str(argument) for argument in arguments)]
        return CliRunner().invoke(app, words, env={"FOREWORD_HOME": str(home), "COLUMNS": "80"}, **options)

    return invoke


def test_a_goal_is_met(run: Any):
    result = run("run", "What is 17 * 23 - 4?", *SCRIPTED, "--tool", "calculator")
    assert result.exit_code == 0, result.stderr
    assert "387" in result.stdout
    assert "agent 1 answer: " in result.stderr and "goal-met (1 steps, 1 calls" in result.stderr


def test_json_says_what_it_took(run: Any):
    result = run("run", "What is 6 * 7?", *SCRIPTED, "--json", "--quiet")
    row = json.loads(result.stdout)
    assert row["status"] == "goal-met" and "42" in row["text"] and row["calls"] == 1 and row["usage"]["completion_tokens"] > 0
    assert "answer:" not in result.stderr


def test_a_goal_that_is_not_met_is_an_exit_code(run: Any):
    result = run("run", "Sing.", "--engine", "echo", "--tool", "calculator")
    assert result.exit_code == 1
    assert "failed: The model did not keep to the form 3 times in a row" in result.stderr


def test_the_goal_may_come_from_the_file_or_from_standard_input(run: Any, tmp_path: Path):
    file = tmp_path / "agent.toml"
    file.write_text('goal = "What is 6 * 7?"\n[model]\nengine = "scripted"\nname = "arithmetic"\n')
    assert "42" in run("run", "--agent", file).stdout
    assert "42" in run("run", "--agent", tmp_path).stdout
    assert "9" in run("run", "-", "--agent", file, input="What is 4 + 5?").stdout
    nothing = run("run", *SCRIPTED)
    assert nothing.exit_code == 2 and "GOAL" in nothing.stderr


def test_options_stand_above_the_file(run: Any, tmp_path: Path):
    file = tmp_path / "agent.toml"
    file.write_text("[budget]\nsteps = 5\n[model]\nengine = 'echo'\nname = 'echo'\n[[tools]]\ntool = 'calculator'\n")
    result = run("run", "Sing.", "--agent", file, "--budget-steps", 1)
    assert "The budget of 1 steps is spent" in result.stderr
    assert run("run", "What is 2 + 3?", "--agent", file, *SCRIPTED).exit_code == 0


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--tool", "calculatr"), "calculator"),
        (("--tool", "sql(path=none.sqlite)"), "none.sqlite"),
        (("--budget-money", "many"), "budget.money"),
        (("--budget-money", "1"), "price"),
        (("--check", "nobody"), "judge"),
        (("--agent", "none.toml"), "none.toml"),
    ],
)
def test_wrong_options_are_told(run: Any, options: tuple[str, ...], told: str):
    result = run("run", "Go.", *SCRIPTED, *options)
    assert result.exit_code == 2 and told in result.stderr


def test_a_run_is_replayed_and_done_again(run: Any, tmp_path: Path):
    trace = tmp_path / "run.jsonl"
    run("run", "What is 6 * 7?", *SCRIPTED, "--trace", trace, "--tool", "calculator")
    shown = run("replay", trace)
    assert shown.exit_code == 0
    assert "1. run" in shown.stdout and "  2. call" in shown.stdout and shown.stdout.rstrip().endswith("goal-met (1 steps)")
    assert json.loads(run("replay", trace, "--json").stdout)[0]["attributes"]["goal"] == "What is 6 * 7?"
    again = run("replay", trace, "--again")
    assert again.exit_code == 0 and "The same: 1 steps" in again.stdout
    trace.write_text(trace.read_text().replace("6 * 7", "6 * 8", 1))
    changed = run("replay", trace, "--again")
    assert changed.exit_code == 1 and "Different at call 2" in changed.stdout
    assert json.loads(run("replay", trace, "--again", "--json").stdout)["same"] is False


def test_no_recording_is_told(run: Any, tmp_path: Path):
    (tmp_path / "x.jsonl").write_text("{}\n")
    assert run("replay", tmp_path / "x.jsonl").exit_code == 2
    assert run("replay", tmp_path / "none.jsonl").exit_code == 2


def test_memory_is_listed_and_forgotten(run: Any, home: Path):
    assert run("memory", "ls").exit_code == 2
    home.mkdir()
    memory = LongMemory(home / "memory.sqlite")
    memory.remember("Tea costs 3.", provenance=Provenance(run="r1", span=4, source="tool:sql"))
    memory.remember("Ben likes [red] tea.")
    memory.close()
    rows = json.loads(run("memory", "ls", "--json").stdout)
    assert [(row["text"], row["source"], row["run"]) for row in rows] == [
        ("Tea costs 3.", "tool:sql", "r1"),
        ("Ben likes [red] tea.", "user", ""),
    ]
    assert "Ben likes [red] tea." in run("memory", "ls").stdout
    assert json.loads(run("memory", "ls", "What does tea cost? 3", "--json").stdout)[0]["text"] == "Tea costs 3."
    assert run("memory", "ls", "--tenant", "anna", "--json").stdout.strip() == "[]"
    assert "Forgot 1 fact." in run("memory", "forget", "--words", "ben").stdout
    assert json.loads(run("memory", "forget", "1", "--json").stdout) == {"forgotten": [1]}
    assert run("memory", "forget").exit_code == 2
    assert run("memory", "forget", "--faded", "0.9").exit_code == 0
    assert "Nothing is remembered" in run("memory", "ls").stderr


def test_with_a_memory_something_is_kept(run: Any, home: Path):
    assert run("run", "What is 6 * 7?", *SCRIPTED, "--memory").exit_code == 0
    assert (home / "memory.sqlite").is_file()


SERVER = """
import sys
import typer
from foreword.cli import agent
from foreword.cli._console import ForewordGroup
app = typer.Typer(cls=ForewordGroup)
app.add_typer(agent.app, name="agent")
@app.callback()
def root(): pass
app()
"""


def test_an_agent_is_served(home: Path, tmp_path: Path):
    keys = tmp_path / "keys.txt"
    keys.write_text("key-of-anna anna\n")
    command = [sys.executable, "-c", SERVER, "agent", "serve", *SCRIPTED, "--port", "0", "--api-keys", str(keys)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "FOREWORD_HOME": str(home)}
    ) as process:
        try:
            assert process.stdout is not None
            url = process.stdout.readline().rpartition(" ")[2].strip()
            with urllib.request.urlopen(f"{url}/.well-known/agent-card.json", timeout=30) as response:
                assert json.loads(response.read())["security"] == [{"bearer": []}]
            message = {"role": "user", "messageId": "m", "parts": [{"kind": "text", "text": "What is 6 * 7?"}]}
            body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "message/send", "params": {"message": message}}).encode()
            headers = {"content-type": "application/json", "authorization": "Bearer key-of-anna"}
            with urllib.request.urlopen(urllib.request.Request(url, data=body, headers=headers), timeout=30) as response:
                task = json.loads(response.read())["result"]
            assert task["status"]["state"] == "completed" and "42" in task["artifacts"][0]["parts"][0]["text"]
        finally:
            process.send_signal(signal.SIGTERM)
        told = process.communicate(timeout=30)[1]
        assert process.returncode == 0, told


def test_keys_are_asked_for_once(run: Any, tmp_path: Path):
    assert run("serve", *SCRIPTED, "--api-keys", tmp_path / "none").exit_code == 2
    assert run("serve", *SCRIPTED, "--api-keys-env", "NO_SUCH_VARIABLE").exit_code == 2
