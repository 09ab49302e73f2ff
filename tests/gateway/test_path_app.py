"""The path's edge: what comes in, and what goes out, over real sockets."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any
from urllib.parse import urlsplit

import openai
import pytest

from foreword.gateway.tenants import parse_keys
from paths import BARE, ServedPath, charges_of, serving_path
from upstreams import FakeUpstream, answer, cut, drop, endless, error_event, refuse, upstream, when

PRICE = {"input_per_million": "1", "output_per_million": "2"}
HI = [{"role": "user", "content": "Hi."}]
BODY = {"model": "auto", "messages": HI}
CHAT = "/v1/chat/completions"
PATIENCE = 30.0


@pytest.fixture
def fake() -> Iterator[FakeUpstream]:
    with upstream(answer("Hello there, friend.")) as fake:
        yield fake


@pytest.fixture
def serve(fake: FakeUpstream) -> Callable[..., Any]:
    def serving(model: dict[str, Any] | None = None, *, settings: dict[str, Any] | None = None, **options: Any) -> Any:
        big = {"url": fake.url, "model": "big-1", "price": PRICE, "retries": 0, **(model or {})}
        return serving_path({"models": {"big": big}, "stages": list(BARE), **(settings or {})}, **options)

    return serving


@pytest.fixture
def path(serve: Callable[..., Any]) -> Iterator[ServedPath]:
    with serve() as path:
        yield path


def post(path: ServedPath, content: bytes, *, kind: str = "application/json", **headers: str) -> Any:
    with path.http() as http:
        return http.post(CHAT, content=content, headers={"content-type": kind, **headers})


def raw(path: ServedPath, request: bytes) -> bytes:
    """What comes back on a connection of our own until it ends, or has been silent for a while."""
    place = urlsplit(path.base_url)
    with socket.create_connection((place.hostname, place.port), PATIENCE) as connection:
        connection.sendall(request)
        connection.settimeout(0.5)
        got = b""
        try:
            while piece := connection.recv(65536):
                got += piece
        except TimeoutError:
            pass
    return got


# What comes in.


@pytest.mark.parametrize(
    ("change", "status", "param"),
    [
        ({"colour": "red"}, 400, "colour"),
        ({"model": None}, 400, "model"),
        ({"model": ""}, 400, "model"),
        ({"model": 7}, 400, "model"),
        ({"model": "m" * 600}, 400, "model"),
        ({"model": "nope"}, 404, "model"),
        ({"model": "bigg"}, 404, "model"),
        ({"messages": []}, 400, "messages"),
        ({"messages": "Hi."}, 400, "messages"),
        ({"messages": [{"role": "robot", "content": "Hi."}]}, 400, "messages[0].role"),
        ({"messages": [{"content": "Hi."}]}, 400, "messages[0]"),
        ({"messages": [{"role": "user", "content": 7}]}, 400, "messages[0].content"),
        ({"messages": [{"role": "user", "content": "Hi.", "colour": "red"}]}, 400, "messages[0].colour"),
        ({"temperature": "hot"}, 400, "temperature"),
        ({"temperature": 2.5}, 400, "temperature"),
        ({"top_p": 0}, 400, "top_p"),
        ({"n": 0}, 400, "n"),
        ({"max_tokens": -1}, 400, "max_tokens"),
        ({"max_tokens": 1.5}, 400, "max_tokens"),
        ({"stream": "yes"}, 400, "stream"),
        ({"stop": [7]}, 400, "stop[0]"),
        ({"metadata": {"a": 1}}, 400, "metadata[...]"),
        ({"tools": {}}, 400, "tools"),
        ({"max_tokens": 5, "max_completion_tokens": 6}, 400, "max_completion_tokens"),
        ({"stream_options": {"include_usage": True}}, 400, "stream_options"),
        ({"top_logprobs": 3}, 400, "top_logprobs"),
        ({"logprobs": False, "top_logprobs": 3}, 400, "top_logprobs"),
        ({"tool_choice": "required"}, 400, "tool_choice"),
        ({"metadata": {"task": "unheard-of"}}, 400, "metadata.task"),
    ],
)
def test_what_cannot_be_is_refused_by_its_field(
    path: ServedPath, fake: FakeUpstream, change: dict[str, Any], status: int, param: str
) -> None:
    refused = post(path, json.dumps({**BODY, **change}).encode())
    assert refused.status_code == status, refused.text
    error = refused.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert (error["type"], error["param"]) == ("invalid_request_error", param)
    assert error["code"] and error["message"].endswith((".", "?")) and "Traceback" not in refused.text
    assert not fake.seen


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b'"text"',
        b"\xff\xfe\x00",
        b'{"model": "auto", "messages": [{"role": "user", "content": "\xff"}]}',
        b'{"model": "auto", "messages": [{"role": "user", "content": "\\ud800"}]}',
        b"[" * 100_000,
        b'{"model": "auto", "messages": [], "tools": [' + b'{"a":' * 50_000,
        b'{"model": "auto", "messages": [{"role": "user", "content": "Hi."}]} more',
        b'{"model": "auto", "temperature": NaN, "messages": [{"role": "user", "content": "Hi."}]}',
    ],
)
def test_what_is_no_json_is_refused(path: ServedPath, fake: FakeUpstream, content: bytes) -> None:
    refused = post(path, content)
    assert refused.status_code == 400, refused.text
    error = refused.json()["error"]
    assert error["type"] == "invalid_request_error" and "Traceback" not in refused.text
    assert not fake.seen
    # Nothing of it was a request that somebody made.
    assert not path.entries()


def test_a_body_of_another_type_is_refused(path: ServedPath) -> None:
    for kind in ("text/plain", "", "application/x-www-form-urlencoded", "application/jsonp"):
        refused = post(path, json.dumps(BODY).encode(), kind=kind)
        assert (refused.status_code, refused.json()["error"]["code"]) == (415, "unsupported_media_type")
    assert post(path, json.dumps(BODY).encode(), kind="Application/JSON; charset=utf-8").status_code == 200


def test_a_body_that_is_too_large_is_refused_whatever_it_says_of_itself(serve: Callable[..., Any]) -> None:
    body = json.dumps({**BODY, "messages": [{"role": "user", "content": "x" * 2000}]}).encode()
    with serve(body_bytes=1000) as path:
        assert post(path, body).status_code == 413
        head = b"POST %b HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n" % CHAT.encode()
        chunked = head + b"transfer-encoding: chunked\r\nconnection: close\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
        got = raw(path, chunked)
        assert got.startswith(b"HTTP/1.1 413") and b"body_too_large" in got
        assert post(path, json.dumps(BODY).encode()).status_code == 200


def test_other_methods_and_routes_are_told_what_there_is(path: ServedPath) -> None:
    with path.http() as http:
        for method in ("GET", "PUT", "DELETE"):
            refused = http.request(method, CHAT)
            assert (refused.status_code, refused.headers["allow"]) == (405, "POST")
            assert refused.json()["error"]["code"] == "method_not_allowed"
        nowhere = http.post("/v1/nothing", json={})
        assert (nowhere.status_code, nowhere.json()["error"]["code"]) == (404, "unknown_route")
        assert http.put("/v1/models").status_code == 405


def test_a_key_is_asked_for_before_anything_is_read(serve: Callable[..., Any], fake: FakeUpstream) -> None:
    with serve(keys=parse_keys("anna-key-1 anna", source="the test")) as path:
        for headers in ({}, {"authorization": "Bearer wrong-key"}, {"authorization": "anna-key-1"}):
            refused = post(path, b"{", **headers)
            assert (refused.status_code, refused.json()["error"]["code"]) == (401, "invalid_api_key")
        assert post(path, json.dumps(BODY).encode(), authorization="Bearer anna-key-1").status_code == 200
        # Its own key goes to nobody else.
        assert "anna-key-1" not in str(fake.seen[0].headers) and "authorization" not in fake.seen[0].headers
        assert path.one_entry()["tenant"] == "anna"


def test_nothing_that_a_client_says_becomes_a_header_of_its_own(path: ServedPath) -> None:
    for model in ("big:x\r\nset-cookie: a=b", "big:\x00\x7f", "big:ünï–code"):
        answered = path.ask(model=model)
        assert answered.status_code == 200 and "set-cookie" not in answered.headers
        assert answered.headers["foreword-model"].startswith("big:")


# What goes out.


def test_the_official_client_is_answered_whole_and_in_pieces(path: ServedPath) -> None:
    client = path.client()
    whole = client.chat.completions.create(model="auto", messages=HI)
    assert whole.choices[0].message.content == "Hello there, friend." and whole.usage.total_tokens == 18
    chunks = list(client.chat.completions.create(model="big", messages=HI, stream=True, stream_options={"include_usage": True}))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == "Hello there, friend."
    assert chunks[-1].usage.total_tokens == 18 and len({chunk.id for chunk in chunks}) == 1
    first, second = path.entries()
    assert (whole.id, chunks[0].id) == (first["id"], second["id"])
    assert first["amount"] == second["amount"] == Decimal("0.000025")


def test_usage_that_nobody_asked_for_is_read_and_not_sent(path: ServedPath, fake: FakeUpstream) -> None:
    streamed = path.ask(stream=True).text
    assert "usage" not in streamed and streamed.endswith("data: [DONE]\n\n")
    assert fake.seen[0].body["stream_options"] == {"include_usage": True}
    entry = path.one_entry()
    assert f": foreword-cost {entry['amount']:f}" in streamed and entry["amount"] == Decimal("0.000025")
    assert charges_of(entry)["output"][0] == 7


def test_what_an_answer_cost_and_who_gave_it_is_told(path: ServedPath) -> None:
    headers = path.ask().headers
    assert (headers["foreword-model"], headers["foreword-task"]) == ("big", "default")
    assert Decimal(headers["foreword-cost"]) == Decimal("0.000025")
    assert headers["x-request-id"] and headers["content-type"] == "application/json"


def test_the_model_is_asked_under_its_own_name_and_without_what_is_none_of_its_business(path: ServedPath, fake: FakeUpstream) -> None:
    path.ask(user="u1", metadata={"a": "b"}, store=True, service_tier="flex", temperature=0.5, headers={"cookie": "a=b", "x-secret": "s"})
    sent = fake.seen[0]
    assert sent.body == {"model": "big-1", "messages": [{"role": "user", "content": "Hello."}], "temperature": 0.5}
    assert "cookie" not in sent.headers and "x-secret" not in sent.headers
    assert path.one_entry()["user"] == "u1"


# How it ends.


def test_a_refusal_is_in_the_ledger_with_what_was_asked(path: ServedPath) -> None:
    refused = path.ask(model="nope", metadata={"task": "default"})
    assert refused.status_code == 404 and refused.headers["foreword-task"] == "default"
    entry = path.one_entry()
    assert (entry["status"], entry["asked_model"], entry["model"], entry["amount"]) == ("refused", "nope", "", 0)
    assert entry["charges"] == []


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("behaviour", "status", "code"),
    [(refuse(500), 502, "upstream_failed"), (drop(), 502, "upstream_failed"), (refuse(429), 503, "upstream_busy")],
)
def test_a_model_that_fails_is_told_of_and_written_down(
    path: ServedPath, fake: FakeUpstream, behaviour: Any, status: int, code: str, stream: bool
) -> None:
    fake.script(behaviour)
    refused = path.ask(stream=stream)
    assert (refused.status_code, refused.json()["error"]["code"]) == (status, code)
    assert refused.headers["content-type"] == "application/json"
    assert path.one_entry()["status"] == "failed"


@pytest.mark.parametrize("behaviour", [cut(), error_event(after=2)])
def test_a_stream_that_breaks_off_ends_with_an_error_event(path: ServedPath, fake: FakeUpstream, behaviour: Any) -> None:
    fake.script(behaviour)
    got = path.ask(stream=True)
    events = [event.removeprefix("data: ") for event in got.text.split("\n\n") if event]
    assert got.status_code == 200 and "[DONE]" not in got.text
    error = json.loads(events[-1])["error"]
    assert error["code"] == "upstream_failed" and error["type"] == "server_error"
    assert fake.url not in got.text
    entry = path.one_entry()
    assert entry["status"] == "failed" and entry["amount"] > 0
    fake.script(behaviour)
    with pytest.raises(openai.APIError):
        list(path.client().chat.completions.create(model="auto", messages=HI, stream=True))


def test_a_client_that_leaves_in_the_middle_of_a_stream_pays_for_what_came(path: ServedPath, fake: FakeUpstream) -> None:
    fake.script(endless())
    stream = path.client().chat.completions.create(model="auto", messages=HI, stream=True)
    for _, _ in zip(range(5), stream, strict=False):
        pass
    stream.close()
    (entry,) = path.wait_for_entries(1)
    fake.wait_for_disconnect()
    assert entry["status"] == "cancelled" and entry["amount"] > 0
    assert charges_of(entry)["output"][0] >= 3
    assert all(charge["priced_by"].endswith("(estimated)") for charge in entry["charges"])
    assert path.server.state.service.traffic.in_flight == 0


def test_a_client_that_leaves_before_its_answer_is_billed_as_one_that_left(path: ServedPath, fake: FakeUpstream) -> None:
    go = threading.Event()
    fake.script(when(go, answer("Too late.")))
    place = urlsplit(path.base_url)
    connection = http.client.HTTPConnection(str(place.hostname), place.port, timeout=PATIENCE)
    connection.request("POST", CHAT, json.dumps(BODY), {"content-type": "application/json"})
    fake.wait_for(1)
    connection.close()
    (entry,) = path.wait_for_entries(1)
    fake.wait_for_disconnect()
    assert entry["status"] == "cancelled"
    go.set()
    time.sleep(0.1)
    assert len(path.entries()) == 1


def test_every_request_has_one_entry_however_its_clients_behave(path: ServedPath, fake: FakeUpstream) -> None:
    fake.script(answer("Hello there, friend.", gap=0.002))
    place, body = urlsplit(path.base_url), json.dumps({**BODY, "stream": True}).encode()
    head = b"POST %b HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % (CHAT.encode(), len(body))
    for number in range(24):
        with socket.create_connection((place.hostname, place.port), PATIENCE) as connection:
            connection.sendall(head + body)
            connection.settimeout(PATIENCE)
            # Gone before, at the beginning of, within and just behind the answer.
            for _ in range(number % 8):
                if not connection.recv(120):
                    break
    ids = [entry["id"] for entry in path.wait_for_entries(20)]
    while path.server.state.service.traffic.in_flight:
        time.sleep(0.01)
    # One that left before its request was read made none.
    assert len(path.entries()) <= 24 and len(set(ids)) == len(ids)
    assert path.server.state.service.parts.ledger.writer.lost == 0


def test_a_server_that_stops_lets_answers_end_and_takes_on_no_more(serve: Callable[..., Any], fake: FakeUpstream) -> None:
    go = threading.Event()
    fake.script(when(go, answer("The last one.")))
    with serve(drain_seconds=PATIENCE) as path:
        got: list[Any] = []
        asking = threading.Thread(target=lambda: got.append(path.ask()))
        asking.start()
        fake.wait_for(1)
        path.server.state.service.traffic.draining = True
        refused = path.ask()
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "unavailable")
        assert refused.headers["retry-after"]
        with path.http() as http:
            assert http.get("/readyz").status_code == 503 and http.get("/healthz").status_code == 200
        go.set()
        asking.join(PATIENCE)
    assert got[0].status_code == 200
