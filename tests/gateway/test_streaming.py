"""Events on the wire, and streams that end before their end."""

from __future__ import annotations

import threading
from typing import Any

import openai
import pytest

BODY: Any = {"model": "echo", "messages": [{"role": "user", "content": "w " * 1000}], "stream": True}


def test_headers_and_form(http: Any):
    with http.stream("POST", "/v1/chat/completions", json=BODY | {"max_tokens": 2}) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream") and answer.headers["cache-control"] == "no-cache"
        lines = list(answer.iter_lines())
    assert all(line.startswith("data: ") or not line for line in lines) and lines[-2:] == ["data: [DONE]", ""]


def test_errors_before_the_first_piece_have_their_status(http: Any):
    answer = http.post("/v1/chat/completions", json=BODY | {"max_tokens": 4000})
    assert answer.status_code == 400 and answer.json()["error"]["code"] == "context_length_exceeded"


def test_an_engine_that_closes_ends_the_stream_with_an_error(start: Any):
    server = start("echo-10ms")
    with server.client() as client:
        stream = client.chat.completions.create(**BODY)
        next(iter(stream))
        threading.Thread(target=server.engine.close).start()
        with pytest.raises(openai.APIError, match="stopped before this answer was complete"):
            list(stream)


def test_an_engine_that_closes_ends_a_whole_answer_with_an_error(start: Any, wait_until: Any):
    server = start("echo-10ms")

    def close() -> None:
        wait_until(lambda: server.engine.load().running == 1)
        server.engine.close()

    closing = threading.Thread(target=close)
    closing.start()
    with server.client() as client, pytest.raises(openai.InternalServerError) as cut:
        client.chat.completions.create(**BODY | {"stream": False})
    closing.join()
    assert cut.value.status_code == 503 and cut.value.code == "unavailable"
