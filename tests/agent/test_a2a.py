"""Agents that ask each other over real sockets."""

from __future__ import annotations

import asyncio
import http.server
import json
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from agents import Says, a_tool, call, done, final
from foreword.agent import a2a_listening, a2a_server
from foreword.agent.a2a import Card, Part, Refused, Task, text_of
from foreword.agent.a2a_client import RemoteAgent, remote_tool
from foreword.agent.agent import Agent, AgentBudget, AgentResult
from foreword.errors import AgentError, ConfigError
from foreword.prompting.tool import Tools


@contextmanager
def served(worker_for: Callable[[str], Any], **options: Any) -> Iterator[str]:
    """A server in a thread of its own, on a free port."""
    urls: list[str] = []
    listening = threading.Event()
    stops: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []

    async def main() -> None:
        app = a2a_server.build(worker_for, name="clerk", description="Answers.", version="1", **options)
        stops.append((asyncio.get_running_loop(), asyncio.Event()))

        def ready(url: str) -> None:
            urls.append(url)
            listening.set()

        await a2a_listening.serve(app, host="127.0.0.1", port=0, ready=ready, stop=stops[0][1])

    thread = threading.Thread(target=lambda: asyncio.run(main()))
    thread.start()
    assert listening.wait(30)
    try:
        yield urls[0]
    finally:
        stops[0][0].call_soon_threadsafe(stops[0][1].set)
        thread.join()


def answers(text: str) -> Callable[[str], Agent]:
    """Workers that always say the same."""
    return lambda owner: Agent(model=Says(final(text)))


class Sleeps:
    """A worker that never ends by itself."""

    def __init__(self) -> None:
        self.began, self.cancelled = threading.Event(), threading.Event()

    async def run(self, goal: str) -> AgentResult:
        self.began.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.cancelled.set()
        raise AssertionError


def post(url: str, body: Any, *, key: str | None = None, content_type: str = "application/json") -> tuple[int, Any]:
    """Status and JSON of one request."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = {"content-type": content_type, **({"authorization": f"Bearer {key}"} if key else {})}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data=data, headers=headers), timeout=30) as response:
            return response.status, json.loads(response.read())
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.loads(error.read())


def rpc(method: str, params: Any, number: Any = 1) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": number, "method": method, "params": params}


def a_message(text: str = "What is it?", **fields: Any) -> dict[str, Any]:
    return {"kind": "message", "role": "user", "messageId": "m1", "parts": [{"kind": "text", "text": text}], **fields}


@pytest.mark.parametrize("path", ["/.well-known/agent-card.json", "/.well-known/agent.json"])
def test_the_card_says_where_and_what(path: str):
    with served(answers("42")) as url, urllib.request.urlopen(url + path, timeout=30) as response:
        card = json.loads(response.read())
    required = {
        "name",
        "description",
        "url",
        "version",
        "protocolVersion",
        "capabilities",
        "skills",
        "defaultInputModes",
        "defaultOutputModes",
    }
    assert required <= card.keys()
    assert card["url"] == f"{url}/" and card["preferredTransport"] == "JSONRPC" and card["protocolVersion"] == "0.3.0"
    assert {"id", "name", "description", "tags"} <= card["skills"][0].keys()
    assert Card.model_validate(card).name == "clerk"


def test_a_message_becomes_a_task_that_completes():
    with served(answers("42")) as url:
        status, answer = post(url, rpc("message/send", {"message": a_message(contextId="c1")}, number="x"))
        task = answer["result"]
        assert (status, answer["id"]) == (200, "x")
        assert task["kind"] == "task" and task["status"]["state"] == "completed" and task["contextId"] == "c1"
        assert task["artifacts"][0]["parts"] == [{"kind": "text", "text": "42"}]
        assert task["history"][0]["parts"][0]["text"] == "What is it?"
        again = post(url, rpc("tasks/get", {"id": task["id"], "historyLength": 0}))[1]["result"]
        assert again["status"]["state"] == "completed" and "history" not in again
        assert Task.model_validate(again).metadata == {"foreword": {"status": "goal-met", "steps": 1, "calls": 1}}


def test_work_that_fails_is_a_failed_task_with_its_reason():
    with served(lambda owner: Agent(model=Says("Hm."), tools=Tools.of([a_tool("t", lambda a: "")]))) as url:
        task = post(url, rpc("message/send", {"message": a_message()}))[1]["result"]
    assert task["status"]["state"] == "failed"
    assert "3 times in a row" in task["status"]["message"]["parts"][0]["text"]


def test_a_worker_that_breaks_tells_nothing_of_itself():
    class Breaks:
        async def run(self, goal: str) -> AgentResult:
            raise RuntimeError("secret")

    with served(lambda owner: Breaks()) as url:
        answer = post(url, rpc("message/send", {"message": a_message()}))[1]
    assert answer["result"]["status"]["state"] == "failed" and "secret" not in json.dumps(answer)


def test_a_task_can_be_left_and_cancelled():
    worker = Sleeps()
    with served(lambda owner: worker) as url:
        task = post(url, rpc("message/send", {"message": a_message(), "configuration": {"blocking": False}}))[1]["result"]
        assert task["status"]["state"] in ("submitted", "working")
        assert worker.began.wait(10)
        assert post(url, rpc("tasks/get", {"id": task["id"]}))[1]["result"]["status"]["state"] == "working"
        assert post(url, rpc("tasks/cancel", {"id": task["id"]}))[1]["result"]["status"]["state"] == "canceled"
        assert worker.cancelled.is_set()
        assert post(url, rpc("tasks/cancel", {"id": task["id"]}))[1]["error"]["code"] == -32002


def test_a_long_task_is_told_of_before_it_ends():
    with served(lambda owner: Sleeps(), wait_seconds=0.05) as url:
        assert post(url, rpc("message/send", {"message": a_message()}))[1]["result"]["status"]["state"] == "working"


def test_too_many_tasks_are_rejected():
    with served(lambda owner: Sleeps(), at_once=1, most_waiting=1, wait_seconds=0.01) as url:
        states = [post(url, rpc("message/send", {"message": a_message()}))[1]["result"]["status"]["state"] for _ in range(3)]
    assert states == ["working", "submitted", "rejected"]


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"{", -32700),
        (b"[" * 100_000, -32700),
        ([], -32600),
        ({"jsonrpc": "1.0", "id": 1, "method": "message/send"}, -32600),
        ({"jsonrpc": "2.0", "method": "message/send"}, -32600),
        (rpc("message/stream", {}), -32601),
        (rpc("message/send", {}), -32602),
        (rpc("message/send", {"message": a_message("")}), -32602),
        (rpc("message/send", {"message": {**a_message(), "parts": []}}), -32602),
        (rpc("message/send", {"message": {**a_message(), "parts": [{"kind": "file", "file": {"uri": "http://x"}}]}}), -32005),
        (rpc("message/send", {"message": a_message(taskId="none")}), -32001),
        (rpc("tasks/get", {"id": "none"}), -32001),
        (rpc("tasks/cancel", {"id": "none"}), -32001),
    ],
)
def test_bad_requests_are_errors_of_their_kind(body: Any, code: int):
    with served(answers("42")) as url:
        assert post(url, body)[1]["error"]["code"] == code


def test_bodies_that_are_too_large_or_no_json_are_refused():
    with served(answers("42")) as url:
        assert post(url, b" " * (1 << 20) + b"{}")[0] == 413
        assert post(url, rpc("tasks/get", {"id": "x"}), content_type="text/plain")[0] == 415


def test_a_task_that_ended_takes_no_more_messages():
    with served(answers("42")) as url:
        task = post(url, rpc("message/send", {"message": a_message()}))[1]["result"]
        assert post(url, rpc("message/send", {"message": a_message(taskId=task["id"])}))[1]["error"]["code"] == -32004


def test_tasks_of_one_caller_do_not_exist_for_another():
    owners: list[str] = []

    def worker_for(owner: str) -> Agent:
        owners.append(owner)
        return Agent(model=Says(final("42")))

    names = {"Bearer key-of-anna": "anna", "Bearer key-of-ben": "ben"}
    with served(worker_for, admit=lambda header: names.get(header or "")) as url:
        assert post(url, rpc("tasks/get", {"id": "x"}))[0] == 401
        assert post(url, rpc("tasks/get", {"id": "x"}), key="wrong")[0] == 401
        task = post(url, rpc("message/send", {"message": a_message()}), key="key-of-anna")[1]["result"]
        assert post(url, rpc("tasks/get", {"id": task["id"]}), key="key-of-ben")[1]["error"]["code"] == -32001
        assert post(url, rpc("tasks/get", {"id": task["id"]}), key="key-of-anna")[1]["result"]["id"] == task["id"]
    assert owners == ["anna"]


def test_data_parts_are_read_as_json():
    assert text_of((Part(text="a"), Part(kind="data", data={"b": 1}))) == 'a\n{"b": 1}'
    with pytest.raises(Refused):
        text_of((Part(text=" "),))


# The client


def test_another_agent_is_a_tool():
    with served(answers("42")) as url:

        async def work() -> AgentResult:
            tool = await remote_tool(RemoteAgent(name="clerk", url=url))
            assert "clerk" in tool.description and "Answers." in tool.description
            return await Agent(model=Says(call("clerk", '{"message": "What is it?"}'), final("42!")), tools=Tools.of([tool])).run("Ask.")

        result = done(work())
    assert result.status == "goal-met"
    assert result.trace.of_kind("tool")[0].attributes["observation"] == "42"


def test_failures_over_there_are_observations_here():
    with served(lambda owner: Agent(model=Says(final("no")), budget=AgentBudget(calls=0))) as url:
        observation = done(_observed(url, '{"message": "Go."}'))
    assert not observation.ok and "0 calls" in observation.text


async def _observed(url: str, arguments: str, **fields: Any) -> Any:
    tool = await remote_tool(RemoteAgent(name="clerk", url=url, **fields))
    return await Tools.of([tool]).call("clerk", arguments)


def test_a_task_that_takes_too_long_is_given_up_and_cancelled_over_there():
    worker = Sleeps()
    with served(lambda owner: worker) as url:
        observation = done(_observed(url, '{"message": "Go."}', seconds=0.3))
        assert not observation.ok and "took longer" in observation.text
        assert worker.cancelled.wait(10)


def test_the_key_is_sent(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CLERK_KEY", "key-of-anna")
    with served(answers("42"), admit=lambda header: "anna" if header == "Bearer key-of-anna" else None) as url:
        assert done(_observed(url, '{"message": "Go."}', key_env="CLERK_KEY")).text == "42"
        without = done(_observed(url, '{"message": "Go."}'))
    assert not without.ok and "401" in without.text


@contextmanager
def stranger(answer: Callable[[str], tuple[int, bytes, dict[str, str]]]) -> Iterator[str]:
    """A server that answers each path as it is told."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body, headers = answer(self.path)
            self.rfile.read(int(self.headers.get("content-length", 0)))
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def card(url: str, **fields: Any) -> bytes:
    return json.dumps({"name": "n", "description": "d", "url": url, "version": "1", "protocolVersion": "0.3.0", **fields}).encode()


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (card("http://169.254.169.254/"), "leads from"),
        (card("file:///etc/passwd"), "no usable address"),
        (card("SAME", protocolVersion="1.0"), "speaks A2A 1.0"),
        (card("SAME", preferredTransport="GRPC"), "GRPC"),
        (b"{}", "no Card"),
        (b"<html>", "no JSON"),
        (b"x" * 2_000_000, "more than"),
    ],
)
def test_cards_that_mislead_are_refused(body: bytes, message: str):
    urls: list[str] = []
    with stranger(lambda path: (200, body.replace(b"SAME", urls[0].encode()), {})) as url:
        urls.append(url)
        with pytest.raises(AgentError, match=message):
            done(remote_tool(RemoteAgent(name="clerk", url=url)))


def test_redirects_are_not_followed():
    with stranger(lambda path: (302, b"", {"location": "http://127.0.0.1:1/"})) as url, pytest.raises(AgentError, match="302"):
        done(remote_tool(RemoteAgent(name="clerk", url=url)))


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (
            b'{"jsonrpc": "2.0", "id": 1, "result": '
            b'{"kind": "message", "role": "agent", "messageId": "m", "parts": [{"kind": "text", "text": "hi"}]}}',
            "hi",
        ),
        (b'{"jsonrpc": "2.0", "id": 1, "error": {"code": -32000, "message": "no"}}', "refused message/send: no"),
        (b'{"jsonrpc": "2.0", "id": 1, "result": {"kind": "task"}}', "no Task"),
        (b"[]", "no JSON-RPC"),
        (b"x" * 2_000_000, "more than"),
    ],
)
def test_whatever_the_other_agent_answers_is_an_observation(answer: bytes, told: str):
    urls: list[str] = []
    with stranger(lambda path: (200, card(urls[0]) if "well-known" in path else answer, {})) as url:
        urls.append(url)
        assert told in done(_observed(url, '{"message": "Go."}')).text


@pytest.mark.parametrize("url", ["ftp://x", "http://", "http://user:pw@host", "http://host:99999", "host", "http://a b"])
def test_addresses_that_cannot_be_used_are_refused(url: str):
    with pytest.raises(ConfigError, match="no address"):
        done(remote_tool(RemoteAgent(name="clerk", url=url)))


def test_an_agent_that_is_not_there_is_an_error():
    with pytest.raises(AgentError, match="not reached"):
        done(remote_tool(RemoteAgent(name="clerk", url="http://127.0.0.1:1")))


def test_keys_do_not_travel_in_the_clear(monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(ConfigError, match="not set"):
        done(remote_tool(RemoteAgent(name="clerk", url="http://127.0.0.1:1", key_env="NO_SUCH_KEY")))
    monkeypatch.setenv("CLERK_KEY", "key")
    with pytest.raises(ConfigError, match="https"):
        done(remote_tool(RemoteAgent(name="clerk", url="http://example.org", key_env="CLERK_KEY")))
