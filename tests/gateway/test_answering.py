"""What a client is told of an answer at which the engine fails."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest

BREAKS, FINE = "one break two", "one two"
ERROR = {
    "message": "The engine failed at this answer. The server's log says more.",
    "type": "server_error",
    "param": None,
    "code": "internal_error",
}


def asked(route: str, words: str) -> dict[str, Any]:
    return {"model": "echo", **({"prompt": words} if route == "completions" else {"messages": [{"role": "user", "content": words}]})}


@pytest.fixture(scope="module")
def server(begin_server: Any) -> Iterator[Any]:
    """A server whose engine fails where it would say `break`."""
    running = begin_server(fails_at="break")
    yield running
    running.stop()


@pytest.mark.parametrize("route", ["chat/completions", "completions"])
def test_a_whole_answer_is_an_error(http: Any, route: str):
    answer = http.post(f"/v1/{route}", json=asked(route, BREAKS))
    assert answer.status_code == 500 and answer.json() == {"error": ERROR}
    assert http.post(f"/v1/{route}", json=asked(route, FINE)).status_code == 200


@pytest.mark.parametrize("route", ["chat/completions", "completions"])
def test_a_stream_ends_with_the_error(http: Any, route: str):
    body = {**asked(route, BREAKS), "stream": True, "stream_options": {"include_usage": True}}
    answer = http.post(f"/v1/{route}", json=body)
    *chunks, last = [json.loads(event.removeprefix("data: ")) for event in answer.text.split("\n\n") if event]
    assert answer.status_code == 200 and last == {"error": ERROR}
    assert all(choice["finish_reason"] is None for chunk in chunks for choice in chunk["choices"])
    assert all(chunk["usage"] is None for chunk in chunks)
    assert http.post(f"/v1/{route}", json={**body, **asked(route, FINE)}).text.endswith("data: [DONE]\n\n")


def test_the_clients_own_error_classes(client: Any):
    messages = [{"role": "user", "content": BREAKS}]
    with pytest.raises(openai.InternalServerError, match="The engine failed"):
        client.chat.completions.create(model="echo", messages=messages)
    with pytest.raises(openai.APIError, match="The engine failed"):
        list(client.chat.completions.create(model="echo", messages=messages, stream=True))


def test_one_of_several_answers_fails_them_all(start: Any, wait_until: Any):
    server = start("echo-5ms", fails_at="break")
    with server.client() as client:
        for stream in (True, False):
            many = "w " * (1000 if stream else 20)
            with pytest.raises(openai.APIError, match="The engine failed"):
                list(client.completions.create(model="echo", prompt=[BREAKS, many], max_tokens=1000, stream=stream))
            wait_until(lambda: server.engine.load().running + server.engine.load().waiting == 0)
    # A stream gives the others up at once.
    assert server.engine.load().completion_tokens < 1000
    wait_until(lambda: server.app.state.service.traffic.in_flight == 0)
