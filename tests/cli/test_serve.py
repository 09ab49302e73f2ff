"""`foreword serve`: what it prints, what it refuses before anything is loaded. Serving itself is tried in tests/gateway."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
import torch

from foreword.prefix.artifact import Prefix
from foreword.prefix.header import Fingerprint, Geometry, StandsFor
from foreword.prefix.stands_for import messages_hash
from foreword.prefix.store import PrefixStore
from foreword.prompting.store import PromptStore
from foreword.prompting.template import build
from foreword.types import Message

PATIENCE = 60.0


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Any]:
    """`served(*options, **environment)`: a server in a process of its own and all that it prints first."""
    started: list[subprocess.Popen[str]] = []

    def start(*options: str, **environment: str) -> tuple[subprocess.Popen[str], list[str]]:
        words = [sys.executable, "-m", "foreword", "serve", "--engine", "echo", "--port", "0", *options]
        process = subprocess.Popen(
            words,
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "FOREWORD_HOME": str(tmp_path), **environment},
        )
        started.append(process)
        assert process.stdout is not None
        return process, [process.stdout.readline() for _ in range(7)]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def ended(process: subprocess.Popen[str]) -> str:
    """Stops a server, and gives what it wrote to standard error."""
    process.send_signal(signal.SIGTERM)
    assert process.wait(PATIENCE) == 0
    assert process.stderr is not None
    return process.stderr.read()


def test_what_it_prints_works_as_it_stands(served: Any):
    process, lines = served()
    assert re.fullmatch(r"Serving smollm2 on http://127\.0\.0\.1:\d+\n", lines[0])
    curl = shlex.split(lines[2])
    assert curl[0] == "curl"
    if shutil.which("curl") is None:
        pytest.skip("there is no curl on this machine")
    done = subprocess.run([curl[0], "-s", *curl[1:]], capture_output=True, text=True, check=True, timeout=PATIENCE)
    assert '"content":"Hello!"' in done.stdout
    done = subprocess.run([sys.executable, "-c", "".join(lines[4:])], capture_output=True, text=True, check=True, timeout=PATIENCE)
    assert done.stdout == "Hello!\n"
    assert len(re.findall(r"^INFO: POST /v1/chat/completions 200 [0-9.]+ ms req-\w+$", ended(process), re.MULTILINE)) == 2


def test_keys_and_names(served: Any, tmp_path: Path):
    (tmp_path / "keys").write_text("a-long-enough-key anna\n")
    (tmp_path / "my-model").mkdir()
    process, lines = served("--model", "./my-model", "--api-keys", "keys", "--no-access-log", "--host", "0.0.0.0")
    assert lines[0].startswith("Serving my-model on http://0.0.0.0:") and "Authorization: Bearer YOUR-KEY" in lines[2]
    url = lines[0].split()[-1].replace("0.0.0.0", "127.0.0.1")
    headers = ({}, {"authorization": "Bearer a-long-enough-key"})
    codes = [httpx2.get(f"{url}/v1/models", headers=header, timeout=PATIENCE, trust_env=False).status_code for header in headers]
    assert codes == [401, 200]
    assert ended(process) == ""


def test_open_doors_are_pointed_out(served: Any):
    process, lines = served("--host", "0.0.0.0", "--served-name", "mine")
    assert lines[0].startswith("Serving mine on")
    assert "Whoever reaches 0.0.0.0 may send requests. Give --api-keys" in ended(process)


@pytest.mark.parametrize("words", [(), ("--no-substitute",)])
def test_prefixes_stand_in_unasked_unless_that_is_turned_off(served: Any, tmp_path: Path, words: tuple[str, ...]):
    rules = Message(role="system", content="be kind")
    numbers_LHND = torch.zeros(1, 1, 3, 4)
    prefix = Prefix.make(
        name="rules",
        kind="text",
        key_LHND=numbers_LHND,
        value_LHND=numbers_LHND,
        fingerprint=Fingerprint(architecture="A", config="0" * 64, weights="0" * 64, tokenizer="0" * 64, chat_template="0" * 64),
        geometry=Geometry(layers=1, kv_heads=1, head_dim=4, rotary=()),
        prompt_format="continuation",
        stands_for=StandsFor(messages=messages_hash([rules]), count=1),
    )
    PrefixStore(tmp_path / "prefixes").publish(prefix)
    _, lines = served(*words)
    messages = [{"role": "system", "content": rules.content}, {"role": "user", "content": "hello"}]
    with httpx2.Client(base_url=lines[0].split()[-1], timeout=PATIENCE, trust_env=False) as client:

        def name() -> str | None:
            answer = client.post("/v1/chat/completions", json={"model": "smollm2", "messages": messages})
            assert answer.status_code == 200
            return answer.headers.get("foreword-stands-for")

        # The first requests may come before the store was read.
        end = time.monotonic() + (1 if words else PATIENCE)
        while name() != "rules" and time.monotonic() < end:
            time.sleep(0.05)
        assert name() == (None if words else "rules")


def test_strategies_and_prompts(served: Any, tmp_path: Path):
    PromptStore(tmp_path / "prompts").publish(
        build({"name": "final", "messages": [{"role": "user", "content": "Final Answer: {{ x }}"}]}, source="t")
    )
    _, lines = served("--strategy-calls", "2", "--strategy-tool", "calculator")
    with httpx2.Client(base_url=lines[0].split()[-1], timeout=PATIENCE, trust_env=False) as client:

        def ask(model: str, words: str) -> Any:
            body = {"model": model, "messages": [{"role": "user", "content": words}]}
            return client.post("/v1/chat/completions", json=body)

        votes = ask("strategy:self-consistency(smollm2, n=9, adaptive=false, think=false)", "Answer: 4")
        assert (votes.headers["foreword-calls"], votes.headers["foreword-status"]) == ("2", "budget")
        body = {"model": "strategy:react(smollm2)", "prompt": {"id": "final", "variables": {"x": 5}}}
        answer = client.post("/v1/chat/completions", json=body)
        assert answer.headers["foreword-prompt"] == "final@v1" and answer.json()["choices"][0]["message"]["content"] == "5"
    _, lines = served("--no-strategies", "--prompts", "elsewhere")
    with httpx2.Client(base_url=lines[0].split()[-1], timeout=PATIENCE, trust_env=False) as client:
        assert ask("strategy:zero-shot(smollm2)", "hello").status_code == 404
        answer = client.post("/v1/chat/completions", json={"model": "smollm2", "prompt": {"id": "final"}})
        assert answer.status_code == 404 and answer.json()["error"]["code"] == "prompt_not_found"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--strategy-tool", "python"), "--strategy-tool"),
        (("--strategy-calls", "0"), "--strategy-calls"),
        (("--strategy-seconds", "0"), "--strategy-seconds"),
        (("--engine", "nope"), "No `nope` among engines"),
        (("--api-keys", "missing"), "The file of API keys missing cannot be read: No such file or directory"),
        (("--api-keys", "a", "--api-keys-env", "B"), "--api-keys or --api-keys-env, and not both"),
        (("--api-keys-env", "FOREWORD_UNSET"), "`FOREWORD_UNSET`, which is not set"),
        (("--api-keys-env", "FOREWORD_SHORT"), "the key in line 1 of the environment variable FOREWORD_SHORT must have 8 or more"),
        (("--admin-key-env", "FOREWORD_UNSET"), "`FOREWORD_UNSET`, which is not set"),
        (("--admin-key-env", "FOREWORD_TINY"), "the admin key must have 8 or more"),
        (("--port", "70000"), "--port"),
        (("--max-rows", "0"), "--max-rows"),
        (("--engine", "echo", "--", "--tensor-parallel-size", "2"), "`echo` takes no arguments of its own"),
        (("--", "--tensor-parallel-size", "2"), "`transformers` takes no arguments of its own; got --tensor-parallel-size 2."),
        (("--engine", "echo", "--weights", "int8", "--host", "256.0.0.1"), "The engine `echo` does not look at --weights (leave it out)."),
        (("--engine", "echo", "--dtype", "auto", "--device", "cpu", "--host", "256.0.0.1"), "--dtype (leave it out), --device (leave it"),
        (("--engine", "nope", "--weights", "int8"), "`nope` does not look at --weights"),
        (("--engine", "echo", "--host", "256.0.0.1", "--port", "0"), "Cannot listen on 256.0.0.1 port 0"),
    ],
)
def test_options_that_cannot_be_used(foreword: Any, words: tuple[str, ...], message: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("FOREWORD_SHORT", "tiny anna")
    monkeypatch.setenv("FOREWORD_TINY", "tiny")
    result = foreword("serve", "--model", "/never/loaded", *words)
    assert result.exit_code == 2, result.output
    assert message in result.stderr and "tiny" not in result.stderr and result.stdout == ""


def test_help_has_examples(foreword: Any):
    result = foreword("serve", "--help")
    assert result.exit_code == 0 and "Examples:\n    foreword serve\n" in result.stdout


def test_what_vllm_is_given(foreword: Any, tmp_path: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch):
    """What stands behind `--` reaches vLLM's own command line, here that of a program that writes it down."""
    program = tmp_path / "vllm"
    program.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/given\nexit 3\n')
    program.chmod(0o755)
    monkeypatch.setenv("FOREWORD_VLLM", str(program))
    words = ("serve", "--engine", "vllm", "--model", tiny, "--port", "8123", "--served-name", "mine")
    assert foreword(*words, "--", "--tensor-parallel-size", "2").exit_code == 3
    given = (tmp_path / "given").read_text()
    assert all(part in given for part in ("--tensor-parallel-size 2", "--port 8123", "--served-model-name mine"))
    assert "resident_bytes" not in given
    assert foreword(*words, "--resident-mb", "2.5").exit_code == 3
    assert '"resident_bytes": 2500000' in (tmp_path / "given").read_text()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        # The default too, where it was said.
        (("--max-rows", "32"), "--max-rows (behind `--` its own is `--max-num-seqs N`)."),
        (("--queue", "5"), "--queue (leave it out)."),
        (("--dtype", "float32"), "--dtype (behind `--` its own is `--dtype DTYPE`)."),
        (("--device", "cpu"), "--device (leave it out)."),
        (("--weights", "int8"), "--weights (behind `--` its own is `--quantization METHOD`)."),
        (("--api-keys", "keys"), "--api-keys (behind `--` its own is `--api-key KEY`)."),
        (("--api-keys-env", "KEYS"), "--api-keys-env (behind `--` its own is `--api-key KEY`)."),
        (("--admin-key-env", "KEY"), "--admin-key-env (leave it out)."),
        (("--max-body-mb", "1"), "--max-body-mb (leave it out)."),
        (("--drain-seconds", "3"), "--drain-seconds (behind `--` its own is `--shutdown-timeout SECONDS`)."),
        (("--no-access-log",), "--access-log/--no-access-log (behind `--` its own is `--disable-uvicorn-access-log`)."),
        (("--no-substitute",), "--substitute/--no-substitute (leave it out)."),
        (("--prompts", "folder"), "--prompts (leave it out)."),
        (("--no-strategies",), "--strategies/--no-strategies (leave it out)."),
        (("--strategy-calls", "64"), "--strategy-calls (leave it out)."),
        (("--strategy-seconds", "5"), "--strategy-seconds (leave it out)."),
        (("--strategy-tool", "calculator"), "--strategy-tool (leave it out)."),
        (("--queue", "5", "--device", "cpu"), "--queue (leave it out), --device (leave it out)."),
    ],
)
def test_what_vllm_would_not_look_at_is_refused(foreword: Any, words: tuple[str, ...], message: str):
    result = foreword("serve", "--engine", "vllm", "--model", "/never/loaded", *words)
    assert result.exit_code == 2 and f"The engine `vllm` does not look at {message}" in " ".join(result.stderr.split()), result.output
