"""The command as a whole: what it lists, how fast it could be, how its help reads."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

import foreword as package

COMMANDS = ("tune", "personalize", "compile", "generate", "chat", "serve", "compare", "data", "prefix", "models", "demo")
WITH_EXAMPLES = (
    *(("tune",), ("personalize",), ("compile",), ("generate",), ("chat",), ("serve",), ("compare",), ("models",), ("demo",)),
    *(("prefix", name) for name in ("ls", "show", "verify", "rm", "alias", "compose")),
)
PROBE = "import json, sys; from foreword.cli._app import app; print(json.dumps(sorted(sys.modules)))"


def test_help_lists_every_command(foreword: Any):
    result = foreword("--help")
    assert result.exit_code == 0
    listed = result.stdout.partition("Commands:")[2]
    for name in COMMANDS:
        assert f"\n  {name} " in listed


def test_no_arguments_show_the_help(foreword: Any):
    result = foreword()
    assert "Commands:" in result.output and result.exit_code == 2


@pytest.mark.parametrize("words", WITH_EXAMPLES, ids=" ".join)
def test_every_command_has_examples(foreword: Any, words: tuple[str, ...]):
    result = foreword(*words, "--help")
    assert result.exit_code == 0, result.output
    assert f"Examples:\n    foreword {' '.join(words)}" in result.stdout


@pytest.mark.parametrize("words", [(), ("tune",), ("data", "check"), ("prefix",)], ids=" ".join)
def test_help_does_not_depend_on_the_terminal(foreword: Any, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]):
    narrow = foreword(*words, "--help").stdout
    monkeypatch.setenv("TERMINAL_WIDTH", "40")
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert foreword(*words, "--help").stdout == narrow
    assert max(len(line) for line in narrow.splitlines()) <= 100
    assert "\x1b" not in narrow


def test_data_is_listed_as_it_describes_itself(foreword: Any):
    summary = next(line for line in foreword("--help").stdout.splitlines() if line.startswith("  data ")).split(maxsplit=1)[1]
    assert summary in foreword("data", "--help").stdout


def test_version(foreword: Any):
    result = foreword("--version")
    assert (result.exit_code, result.stdout) == (0, f"foreword {package.__version__}\n")


def test_an_unknown_command(foreword: Any):
    result = foreword("tone")
    assert result.exit_code == 2
    assert "No such command 'tone'" in result.stderr
    assert result.stdout == ""


def test_listing_the_commands_loads_nothing_heavy():
    done = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, text=True, check=True)
    loaded = set(json.loads(done.stdout))
    assert loaded & {"torch", "transformers", "numpy", "pydantic", "matplotlib"} == set()


def test_an_error_of_a_lazily_mounted_command_is_a_message(foreword: Any):
    result = foreword("data", "check", "missing.jsonl")
    assert result.exit_code == 2
    assert "Error: There is no file `missing.jsonl`" in result.stderr
