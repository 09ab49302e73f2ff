"""Listening, and stopping in good order."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest

PATIENCE = 60.0
LONG: Any = {"model": "echo-10ms", "messages": [{"role": "user", "content": "w " * 100}], "stream": True}
ENDLESS: Any = {
    "model": "echo-10ms",
    "messages": [{"role": "user", "content": "w"}],
    "stream": True,
    "max_tokens": 4000,
    "extra_body": {"ignore_eos": True},
}


@pytest.fixture
def process(tmp_path: Path) -> Iterator[Any]:
    """`process("--drain-seconds", "5")`: the command in a process of its own, and its URL."""
    started: list[subprocess.Popen[str]] = []

    def start(*options: str) -> tuple[subprocess.Popen[str], str]:
        words = [sys.executable, "-m", "foreword", "serve", "--engine", "echo", "--model", "echo-10ms", "--port", "0", *options]
        environment = {**os.environ, "FOREWORD_HOME": str(tmp_path)}
        running = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
        started.append(running)
        assert running.stdout is not None
        found = re.search(r"http://\S+", running.stdout.readline())
        assert found is not None, running.stderr.read() if running.stderr else ""
        return running, found[0]

    yield start
    for running in started:
        running.kill()
        running.communicate()


def client(url: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=PATIENCE)


def test_terminated_it_lets_answers_end_and_takes_no_more(process: Any, wait_until: Any):
    running, url = process("--drain-seconds", "60")
    with client(url) as openai_client, httpx2.Client(base_url=url, timeout=PATIENCE, trust_env=False) as http:
        stream = openai_client.chat.completions.create(**LONG)
        first = next(iter(stream))
        running.send_signal(signal.SIGTERM)
        wait_until(lambda: http.get("/readyz").status_code == 503)
        assert http.get("/healthz").status_code == 200 and http.get("/readyz").json() == {"status": "draining"}
        with pytest.raises(openai.InternalServerError) as refused:
            openai_client.chat.completions.create(**LONG)
        assert refused.value.status_code == 503 and refused.value.response.headers["retry-after"]
        chunks = [first, *stream]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == " ".join(["w"] * 100)
    assert running.wait(PATIENCE) == 0
    assert running.stderr.read().count("/v1/chat/completions 200") == 1


@pytest.mark.parametrize(("options", "signals"), [(("--drain-seconds", "0"), 1), (("--drain-seconds", "600"), 2)])
def test_what_does_not_end_in_time_is_cut_short(process: Any, options: tuple[str, ...], signals: int, wait_until: Any):
    running, url = process(*options)
    with client(url) as openai_client, httpx2.Client(base_url=url, timeout=PATIENCE, trust_env=False) as http:
        stream = openai_client.chat.completions.create(**ENDLESS)
        next(iter(stream))
        running.send_signal(signal.SIGINT)
        if signals == 2:
            wait_until(lambda: http.get("/readyz").status_code == 503)
            running.send_signal(signal.SIGTERM)
        with pytest.raises(openai.APIError, match="stopped before"):
            list(stream)
    assert running.wait(PATIENCE) == 0
    assert "1 requests are cut short" in running.stderr.read()


def test_killed_and_started_again_on_the_same_port(process: Any):
    running, url = process()
    with client(url) as openai_client:
        next(iter(openai_client.chat.completions.create(**ENDLESS)))
        running.kill()
        running.wait()
    _, again = process("--port", url.rpartition(":")[2])
    assert again == url
    with client(again) as openai_client:
        assert openai_client.models.list().data[0].id == "echo-10ms"


def test_an_address_in_use(start: Any):
    server = start()
    port = int(server.url.rpartition(":")[2])
    with pytest.raises(AssertionError, match=f"Cannot listen on 127.0.0.1 port {port}: Address already in use"):
        start_on(server, port)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(AssertionError, match="Cannot listen on"):
            start_on(server, taken.getsockname()[1])


def start_on(server: Any, port: int) -> None:
    """One more server with the same application, on a given port."""
    other = type(server)(app=server.app, engine=server.engine, store=server.store)
    other.start(port=port)


def test_idle_connections_do_not_hold_up_the_end(start: Any):
    server = start(drain_seconds=60.0)
    with server.http() as http:
        assert http.get("/healthz").status_code == 200
        server.stop()
    assert server.app.state.service.traffic.draining
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith(("foreword-echo", "test-server"))] == []


def test_a_client_that_leaves_in_the_middle_of_its_body(server: Any, http: Any):
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(
            b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 500\r\n\r\n{"
        )
    assert http.get("/healthz").status_code == 200
