"""The `vllm` engine: its command line, running it, and its client against a server on a real socket."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from foreword.engine import Generates
from foreword.engines import _vllm_command, vllm
from foreword.errors import ConfigError, ModelError, Overloaded, ServingError, WindowError
from foreword.types import Constraint, Message, Sampling, Usage
from foreword.vllm_plugin import versions
from foreword.vllm_plugin.requests import TEMPLATE_KEY
from foreword.vllm_plugin.settings import PluginSettings

HI = (Message(role="user", content="Hi"),)


@pytest.fixture
def program(tmp_path: Path) -> Callable[..., Path]:
    """`program(script)`: a `vllm` in a folder of its own, with no Python beside it."""

    def make(script: str = "") -> Path:
        path = tmp_path / "bin" / "vllm"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!{sys.executable}\n{textwrap.dedent(script)}", encoding="utf-8")
        path.chmod(0o755)
        return path

    return make


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_vllm_command, "GPU_DEVICES", ())


def value(words: list[str], option: str) -> str:
    assert words.count(option) == 1, f"{option} in {words}"
    return words[words.index(option) + 1]


def settings(words: list[str]) -> PluginSettings:
    transfer = json.loads(value(words, "--kv-transfer-config"))
    assert {key: transfer[key] for key in ("kv_connector", "kv_connector_module_path", "kv_role")} == {
        "kv_connector": "PrefixConnector",
        "kv_connector_module_path": "foreword.vllm_plugin.connector",
        "kv_role": "kv_consumer",
    }
    return PluginSettings.read(transfer["kv_connector_extra_config"])


# --- the command line ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma3_text"])
def test_the_command_line_names_the_model_by_its_fingerprint(engine_of, folder_of, program, tmp_path, no_gpu, family):
    folder = folder_of(family)
    words = vllm.command(model=str(folder), prefixes=tmp_path / "prefixes", vllm=program(), host="::1", port=0)
    assert words[:3] == [str(program()), "serve", str(folder)]
    assert settings(words).prefixes == tmp_path / "prefixes"
    assert settings(words).fingerprint == engine_of(family).fingerprint
    assert value(words, "--middleware") == "foreword.vllm_plugin.PrefixMiddleware"
    assert value(words, "--served-model-name") == folder.name
    assert (value(words, "--host"), value(words, "--port"), value(words, "--block-size")) == ("::1", "0", "32")
    assert TEMPLATE_KEY in Path(value(words, "--chat-template")).read_text(encoding="utf-8")


def test_further_words_come_last_and_win(folder_of, program, tmp_path, no_gpu):
    extra = ["--tensor-parallel-size", "2", "--block-size=64", "--served-model-name", "mine", "--port", "9"]
    words = vllm.command(model=str(folder_of("llama")), prefixes=tmp_path, vllm=program(), port=8000, extra=extra)
    assert words[-len(extra) :] == extra
    assert "--block-size" not in words and value(words, "--served-model-name") == "mine" and value(words, "--port") == "9"


def test_a_chat_template_of_ones_own_is_made_fit_for_continuation(folder_of, program, tmp_path):
    own = tmp_path / "own.jinja"
    own.write_text("{% for m in messages %}MINE {{ m.content }}{% endfor %}{% if add_generation_prompt %}>{% endif %}", encoding="utf-8")
    for extra in (["--chat-template", str(own)], [f"--chat-template={own}"]):
        words = vllm.command(model=str(folder_of("llama")), prefixes=tmp_path, vllm=program(), extra=extra)
        made = Path(value(words, "--chat-template")).read_text(encoding="utf-8")
        assert "MINE" in made and TEMPLATE_KEY in made and str(own) not in words


def test_a_model_without_a_chat_template_gets_none(folder_of, program, tmp_path):
    folder = folder_of("llama", chat_template=False)
    assert "--chat-template" not in vllm.command(model=str(folder), prefixes=tmp_path, vllm=program())


def test_a_gpu_keeps_vllms_own_block_size(folder_of, program, tmp_path, monkeypatch):
    monkeypatch.setattr(_vllm_command, "GPU_DEVICES", (str(tmp_path),))
    assert "--block-size" not in vllm.command(model=str(folder_of("llama")), prefixes=tmp_path, vllm=program())
    assert value(vllm.command(model=str(folder_of("llama")), prefixes=tmp_path, vllm=program(), block_size=16), "--block-size") == "16"


def test_the_store_is_the_usual_one_unless_named(folder_of, program, foreword_home):
    words = vllm.command(model=str(folder_of("llama")), vllm=program(), resident_bytes=7)
    assert settings(words).prefixes == foreword_home / "prefixes" and settings(words).resident_bytes == 7


def test_an_unknown_model_is_said_before_anything_runs(program, tmp_path):
    with pytest.raises(ModelError, match="No model `nowhere`"):
        vllm.launch(model="nowhere", prefixes=tmp_path, vllm=program())


def test_the_program_is_found(program, monkeypatch, tmp_path):
    path = program()
    assert vllm.find_vllm(path) == path
    monkeypatch.setenv("FOREWORD_VLLM", str(path))
    assert vllm.find_vllm() == path
    with pytest.raises(ConfigError, match="no program that can be run"):
        vllm.find_vllm(tmp_path / "nothing")
    monkeypatch.delenv("FOREWORD_VLLM")
    monkeypatch.setattr(sys, "executable", str(tmp_path / "elsewhere" / "python"))
    monkeypatch.setenv("PATH", str(path.parent))
    assert vllm.find_vllm() == path
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="FOREWORD_VLLM"):
        vllm.find_vllm()


def test_both_places_that_name_the_versions_agree():
    assert (_vllm_command.LOWEST, _vllm_command.ABOVE) == (versions.LOWEST, versions.ABOVE)


# --- running it ------------------------------------------------------------------------------------------------


def test_the_command_line_is_shown_and_its_exit_code_returned(folder_of, program, tmp_path):
    record, shown = tmp_path / "record.json", []
    path = program(f"""
        import json, sys
        json.dump(sys.argv[1:], open({str(record)!r}, "w"))
        sys.exit(7)
    """)
    code = vllm.launch(
        model=str(folder_of("llama")), prefixes=tmp_path / "my prefixes", vllm=path, extra=["--seed", "1"], show=shown.append
    )
    words = json.loads(record.read_text())
    assert code == 7 and words[0] == "serve" and words[-2:] == ["--seed", "1"]
    # What is shown can be pasted into a shell.
    again = subprocess.run(["bash", "-c", shown[0]], check=False)
    assert again.returncode == 7 and json.loads(record.read_text()) == words


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_reach_the_server(program, tmp_path, number):
    ready = tmp_path / "ready"
    path = program(f"""
        import pathlib, signal, sys, time
        signal.signal(signal.{number.name}, lambda *_: sys.exit(3))
        pathlib.Path({str(ready)!r}).touch()
        time.sleep(60)
    """)
    code = f"from foreword.engines import _vllm_command; raise SystemExit(_vllm_command.run([{str(path)!r}]))"
    process = subprocess.Popen([sys.executable, "-c", code])
    try:
        waited = threading.Event()
        while not ready.exists() and process.poll() is None:
            waited.wait(0.05)
        process.send_signal(number)
        assert process.wait(timeout=60) == 3
    finally:
        process.kill()


def environment(folder: Path, *, version: str | None, foreword: bool) -> Path:
    """The `vllm` of an environment whose Python knows these packages."""
    site = folder / "site"
    if version is not None:
        (site / "vllm").mkdir(parents=True)
        (site / "vllm/__init__.py").touch()
        (site / "vllm/_version.py").write_text(f"__version__ = version = '{version}'\n", encoding="utf-8")
    if foreword:
        (site / "foreword").mkdir(parents=True)
        (site / "foreword/__init__.py").touch()
    python = folder / "python"
    python.write_text(f'#!/bin/sh\ncd / && PYTHONPATH={site} exec {sys.executable} -S "$@"\n', encoding="utf-8")
    python.chmod(0o755)
    (folder / "vllm").write_text("#!/bin/sh\nexit 0\n", encoding="utf-8")
    (folder / "vllm").chmod(0o755)
    return folder / "vllm"


@pytest.mark.parametrize(
    ("version", "foreword", "said"),
    [("0.32.4", True, None), ("0.31.0", True, r"vLLM 0\.31\.0.*>=0\.32,<0\.33"), ("0.32.0", False, "no Foreword.*-m pip install")],
)
def test_the_environment_is_looked_at_before_it_is_started(tmp_path, version, foreword, said):
    path = environment(tmp_path, version=version, foreword=foreword)
    if said is None:
        vllm_is_fine = _vllm_command.check_environment(path)
        assert vllm_is_fine is None
        return
    with pytest.raises(ConfigError, match=said):
        _vllm_command.check_environment(path)


# --- the client ------------------------------------------------------------------------------------------------


class Listening(ThreadingHTTPServer):
    """Takes many connections at once; the five of the standard library's are soon too few."""

    request_queue_size = 128


@dataclass
class Server:
    """A server on a socket of its own, that answers what it was told and keeps what it was asked."""

    url: str = ""
    asked: list[Any] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    refusal: tuple[int, Any, dict[str, str]] | None = None
    choice: dict[str, Any] = field(default_factory=dict)


@pytest.fixture
def server() -> Iterator[Server]:
    told = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.answer(200, {"data": [{"id": "base", "max_model_len": 512}, {"id": "base:support"}]})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            told.asked.append(body)
            told.keys.append(self.headers.get("Authorization"))
            if told.refusal is not None:
                self.answer(told.refusal[0], told.refusal[1], told.refusal[2])
            elif body.get("stream"):
                self.stream()
            else:
                text = body["messages"][-1]["content"].upper()
                choice = {"message": {"content": text}, "token_ids": [1, 2], "finish_reason": "stop"} | told.choice
                self.answer(200, {"choices": [choice], "usage": {"prompt_tokens": 9, "completion_tokens": 2}})

        def stream(self) -> None:
            self.send_response(200)
            self.end_headers()
            for piece in ("", "Hel", "lo"):
                self.wfile.write(f"data: {json.dumps({'choices': [{'delta': {'content': piece}}]})}\n\n".encode())
            self.wfile.write(b": keep-alive\n\ndata: [DONE]\n\n")

        def answer(self, status: int, content: Any, headers: dict[str, str] | None = None) -> None:
            raw = content if isinstance(content, bytes) else json.dumps(content).encode()
            self.send_response(status)
            for name, entry in {"Content-Length": str(len(raw)), **(headers or {})}.items():
                self.send_header(name, entry)
            self.end_headers()
            self.wfile.write(raw)

        def log_message(self, *_: Any) -> None:
            return

    with Listening(("127.0.0.1", 0), Handler) as listening:
        thread = threading.Thread(target=listening.serve_forever, daemon=True)
        thread.start()
        told.url = f"http://127.0.0.1:{listening.server_address[1]}/v1"
        try:
            yield told
        finally:
            listening.shutdown()
            thread.join()


def test_the_client_meets_the_protocol(server):
    client = vllm.load("base", base_url=server.url + "/", dtype="auto", device="auto", revision=None)
    assert isinstance(client, Generates)
    assert (client.name, client.window) == ("base", 512)


def test_where_the_server_is_may_stand_in_the_environment(server, monkeypatch):
    monkeypatch.setenv("FOREWORD_VLLM_URL", server.url)
    monkeypatch.setenv("FOREWORD_VLLM_KEY", "secret")
    client = vllm.load("base")
    client.generate([HI])
    assert server.keys == ["Bearer secret"] and "secret" not in repr(client)


def test_conversations_are_answered_in_order(server):
    conversations = [(Message(role="user", content=f"question {number}"),) for number in range(40)]
    done: list[int] = []
    answers = vllm.load("base", base_url=server.url).generate(conversations, progress=done.append)
    assert [answer.text for answer in answers] == [f"QUESTION {number}" for number in range(40)]
    assert answers[0].token_ids == (1, 2) and answers[0].usage == Usage(prompt_tokens=9, completion_tokens=2)
    assert answers[0].finish_reason == "stop" and sum(done) == 40
    assert vllm.load("base", base_url=server.url).generate([]) == []


def test_a_prefix_is_asked_for_by_its_name(server, engine_of, prefix_of):
    prefix = prefix_of(engine_of("llama"), (Message(role="system", content="Be brief."),), name="support")
    client = vllm.load("base", base_url=server.url)
    (answer,) = client.generate([HI], prefix=prefix)
    assert list(client.stream(HI, prefix=prefix)) == ["Hel", "lo"]
    assert [body["model"] for body in server.asked] == ["base:support"] * 2
    assert answer.usage.prefix_positions == prefix.positions


def test_every_sampling_setting_is_passed_on(server):
    sampling = Sampling(
        max_new_tokens=5,
        temperature=0.5,
        top_p=0.9,
        top_k=3,
        min_p=0.1,
        repetition_penalty=1.1,
        presence_penalty=0.2,
        frequency_penalty=0.3,
        logit_bias=((7, -2.0),),
        logprobs=2,
        seed=11,
        stop=("END",),
        ignore_end=True,
        constraint=Constraint(kind="choice", value='["a", "b"]'),
    )
    entry = {
        "token": "token_id:5",
        "bytes": [195],
        "logprob": -0.25,
        "top_logprobs": [{"token": "token_id:6", "bytes": [65], "logprob": -2.0}],
    }
    server.choice = {"logprobs": {"content": [entry]}, "finish_reason": "length"}
    (answer,) = vllm.load("base", base_url=server.url).generate([HI], sampling=sampling)
    expected = {
        "max_tokens": 5,
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 3,
        "min_p": 0.1,
        "repetition_penalty": 1.1,
        "presence_penalty": 0.2,
        "frequency_penalty": 0.3,
        "logit_bias": {"7": -2.0},
        "logprobs": True,
        "top_logprobs": 2,
        "return_tokens_as_token_ids": True,
        "seed": 11,
        "stop": ["END"],
        "ignore_eos": True,
        "structured_outputs": {"choice": ["a", "b"]},
    }
    assert expected.items() <= server.asked[0].items()
    (first,) = answer.logprobs
    assert (first.token_id, first.text, first.logprob, first.top[0].token_id, first.top[0].text) == (5, "\ufffd", -0.25, 6, "A")
    assert answer.finish_reason == "length"


@pytest.mark.parametrize(
    ("constraint", "expected"),
    [
        (Constraint(kind="json-object"), {"response_format": {"type": "json_object"}}),
        (
            Constraint(kind="json-schema", value='{"type": "object"}'),
            {"response_format": {"type": "json_schema", "json_schema": {"name": "answer", "schema": {"type": "object"}}}},
        ),
        (Constraint(kind="regex", value="[ab]+"), {"structured_outputs": {"regex": "[ab]+"}}),
    ],
)
def test_constraints_are_passed_on(server, constraint, expected):
    vllm.load("base", base_url=server.url).generate([HI], sampling=Sampling(constraint=constraint))
    assert expected.items() <= server.asked[0].items()


def error(message: str) -> dict[str, Any]:
    return {"error": {"message": message, "type": "x"}}


@pytest.mark.parametrize(
    ("refusal", "kind"),
    [
        ((404, error("The model `base:x` does not exist."), {}), ModelError),
        ((400, error("This model's maximum context length is 512"), {}), WindowError),
        ((400, error("bad temperature"), {}), ServingError),
        ((503, error("scaling"), {}), Overloaded),
        ((500, b"<html>", {}), ServingError),
        ((401, {"error": "Unauthorized"}, {}), ServingError),
    ],
)
def test_refusals_are_of_their_kind(server, refusal, kind):
    server.refusal = refusal
    client = vllm.load("base", base_url=server.url)
    with pytest.raises(kind, match=str(refusal[0])) as raised:
        client.generate([HI])
    assert type(raised.value) is kind


def test_a_full_server_says_when_to_come_again(server):
    server.refusal = (429, error("full"), {"Retry-After": "17"})
    client = vllm.load("base", base_url=server.url)
    with pytest.raises(Overloaded) as raised:
        list(client.stream(HI))
    assert raised.value.retry_after == 17


def test_no_server_and_no_such_model_are_said(server):
    with pytest.raises(ModelError, match=r"serves no model `other`.*base"):
        vllm.load("other", base_url=server.url)
    with pytest.raises(ServingError, match=r"No vLLM server answers at http://127\.0\.0\.1:9/v1"):
        vllm.load("base", base_url="http://127.0.0.1:9/v1")
