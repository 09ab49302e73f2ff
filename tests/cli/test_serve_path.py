"""`foreword serve --config`: the command as it is typed, in a process of its own."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from foreword.cli import _serve_path
from foreword.errors import ConfigError
from foreword.gateway.path_settings import PathSettings, build_settings

PATIENCE = 60.0
CONFIGURATION = """\
[models.small]
engine = "echo"
model = "echo-model"
price = { machine_hour = "0.36" }
options = { max_rows = 4 }

[tasks.support]
rules = ["(?i)refund"]

[store]
ledger = "own/ledger.sqlite"
"""
HI = [{"role": "user", "content": "A refund, please."}]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., tuple[subprocess.Popen[str], str]]]:
    """Starts the command with a file, and gives its process and what it said before the clients' snippet."""
    started: list[subprocess.Popen[str]] = []

    def begin(configuration: str, *options: str) -> tuple[subprocess.Popen[str], str]:
        config = tmp_path / "site" / "foreword.toml"
        config.parent.mkdir(exist_ok=True)
        config.write_text(configuration, encoding="utf-8")
        words = [sys.executable, "-m", "foreword", "serve", "--config", str(config), "--port", "0", *options]
        environment = {**os.environ, "FOREWORD_HOME": str(tmp_path / "home"), "OMP_NUM_THREADS": "1"}
        process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, cwd=tmp_path)
        started.append(process)
        assert process.stdout is not None
        return process, process.stdout.readline()

    yield begin
    for process in started:
        process.kill()
        process.communicate(timeout=PATIENCE)


def settings_of(**models: Any) -> PathSettings:
    return build_settings({"models": models}, source="x")


def test_a_file_is_served_until_a_signal_comes_and_the_ledger_is_written_to_its_end(start: Any, tmp_path: Path) -> None:
    process, said = start(CONFIGURATION)
    assert said.startswith("Serving small on http://127.0.0.1:")
    client = openai.OpenAI(base_url=f"{said.split()[-1]}/v1", api_key="none", max_retries=0, timeout=PATIENCE)
    answer = client.chat.completions.with_raw_response.create(model="auto", messages=HI)
    assert answer.parse().choices[0].message.content == "A refund, please."
    assert answer.headers["foreword-task"] == "support" and answer.headers["foreword-model"] == "small"
    process.send_signal(signal.SIGTERM)
    out, log = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0 and "refund" not in (out + log).lower()
    # Beside the file, wherever the command was started.
    with sqlite3.connect(tmp_path / "site" / "own" / "ledger.sqlite") as ledger:
        assert ledger.execute("select task_type, status from ledger_entries").fetchall() == [("support", "answered")]
    ledger.close()


def test_with_keys_the_greeting_says_where_the_key_goes(start: Any, tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("anna-key-1 anna\n", encoding="utf-8")
    process, said = start(CONFIGURATION, "--api-keys", str(tmp_path / "keys"))
    assert process.stdout is not None
    assert 'api_key="YOUR-KEY"' in "".join(process.stdout.readline() for _ in range(4))
    with pytest.raises(openai.AuthenticationError):
        openai.OpenAI(base_url=f"{said.split()[-1]}/v1", api_key="none", max_retries=0).models.list()


@pytest.mark.parametrize(
    ("configuration", "options", "words"),
    [
        (CONFIGURATION, ("--model", "smollm2"), "leave out --model"),
        (CONFIGURATION, ("--engine", "echo", "--max-rows", "3"), "leave out"),
        (CONFIGURATION.replace("max_rows = 4", "rows = 4"), (), "`rows`"),
        (CONFIGURATION.replace("max_rows = 4", 'max_rows = "many"'), (), "`options.max_rows`"),
        (CONFIGURATION + "[colour]\n", (), "`colour`"),
        (CONFIGURATION.replace('"echo"', '"no-such-engine"'), (), "no-such-engine"),
        (CONFIGURATION + '[models.big]\nurl = "http://a.example"\nmodel = "m"\nkey_env = "NO_SUCH_KEY"\n', (), "NO_SUCH_KEY"),
    ],
)
def test_what_cannot_be_served_is_told_at_once(start: Any, configuration: str, options: tuple[str, ...], words: str) -> None:
    process, said = start(configuration, *options)
    _, log = process.communicate(timeout=PATIENCE)
    assert process.returncode == 2 and not said and words in " ".join(log.split()) and "Traceback" not in log


@pytest.mark.parametrize(
    ("options", "fits"),
    [
        ({"dtype": "float32", "device": "cpu", "weights": "int8", "max_rows": 1, "queue": 0, "resident_mb": 1.5}, True),
        ({"max_rows": 0}, False),
        ({"max_rows": 1.5}, False),
        ({"max_rows": True}, False),
        ({"queue": -1}, False),
        ({"resident_mb": "8"}, False),
        ({"dtype": 16}, False),
        ({"colour": "red"}, False),
    ],
)
def test_options_of_the_engine_are_looked_at(options: dict[str, Any], fits: bool) -> None:
    settings = settings_of(big={"url": "http://a.example", "model": "m"}, small={"engine": "echo", "model": "m", "options": options})
    if fits:
        found = _serve_path.embedded(settings)
        assert found is not None and found.options == options
    else:
        with pytest.raises(ConfigError, match=next(iter(options))):
            _serve_path.embedded(settings)


def test_a_path_without_a_model_of_its_own_loads_none() -> None:
    assert _serve_path.embedded(settings_of(big={"url": "http://a.example", "model": "m"})) is None


@pytest.mark.parametrize(
    ("fields", "needs"),
    [
        ({}, False),
        ({"tasks": {"t": {"cache": {"exact": True}}}}, False),
        ({"tasks": {"t": {"cache": {"semantic": "fixed"}}}}, True),
        ({"tasks": {"t": {"assemble": {"tools": "match"}}}}, True),
        ({"tasks": {"t": {"assemble": {"passages": {"folder": "texts"}}}}}, True),
        ({"intake_model": "a"}, True),
        ({"router_model": "a"}, True),
    ],
)
def test_texts_are_compared_only_where_the_file_asks_for_it(fields: dict[str, Any], needs: bool) -> None:
    models = {"big": {"url": "http://a.example", "model": "m"}}
    assert _serve_path.needs_embedder(build_settings({"models": models, **fields}, source="x")) is needs


def test_a_model_in_a_folder_is_not_called_by_its_place(start: Any, tmp_path: Path) -> None:
    (tmp_path / "site" / "mine").mkdir(parents=True)
    process, said = start(CONFIGURATION.replace('"echo-model"', '"./mine"'))
    client = openai.OpenAI(base_url=f"{said.split()[-1]}/v1", api_key="none", max_retries=0, timeout=PATIENCE)
    answer = client.chat.completions.create(model="auto", messages=HI)
    assert answer.model == "mine" and str(tmp_path) not in answer.model_dump_json()
    process.kill()
