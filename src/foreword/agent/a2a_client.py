"""Another agent as a tool: what a model writes to it is sent as a task, and its answer is the observation.

Where the other agent is comes from the operator's settings alone. Its card may not lead elsewhere, redirects are not followed, and what it
says of itself is cut short before a model reads it.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import re
import ssl
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import SplitResult, urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from foreword.agent.a2a import (
    CARD_PATHS,
    MOST_BYTES,
    UNDER_WAY,
    A2aMessage,
    Card,
    Refused,
    Task,
    loads,
    new_message,
    problem,
    request,
    text_of,
)
from foreword.agent.detached import Detached
from foreword.errors import AgentError, ConfigError, ToolError
from foreword.prompting.tool import Tool

FIRST_WAIT, LONGEST_WAIT = 0.05, 2.0
CANCEL_SECONDS = 5.0
MOST_DESCRIPTION, MOST_MESSAGE = 400, 100_000
_NEAR = ("localhost", "127.0.0.1", "::1")


class RemoteAgent(BaseModel):
    """Where another agent is.

    Attributes:
        name: what its tool is called.
        url: its address, of which `/.well-known/agent-card.json` is its card.
        description: what it is good for; its card's where it is not given.
        key_env: the environment variable that holds its key.
        seconds: for a whole task.
        request_seconds: for one request.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    name: str = Field(pattern=r"^[A-Za-z_][A-Za-z0-9_-]{0,63}$")
    url: str
    description: str | None = None
    key_env: str | None = None
    seconds: float = Field(default=300.0, gt=0)
    request_seconds: float = Field(default=30.0, gt=0)


async def remote_tool(remote: RemoteAgent) -> Tool:
    """The tool that another agent is.

    Raises:
        ConfigError: its address or its key cannot be used.
        AgentError: it is not reached, or is no agent of a kind that is understood.
    """
    base = _address(remote.url)
    key = _key(remote, base)
    threads = Detached(remote.name)
    try:
        async with asyncio.timeout(remote.request_seconds):
            card = await threads.call(_card, base, key, remote.request_seconds)
    except TimeoutError:
        raise AgentError(f"The agent `{remote.name}` gave no card within {remote.request_seconds:g} seconds.") from None
    except ToolError as error:
        raise AgentError(f"The agent `{remote.name}` cannot be used: {error}") from None
    peer = _Peer(threads=threads, url=_same_origin(base, card, remote.name), key=key, seconds=remote.request_seconds)

    async def call(arguments: Mapping[str, Any]) -> str:
        message = arguments.get("message")
        if not isinstance(message, str) or not 0 < len(message.strip()) <= MOST_MESSAGE:
            raise ToolError(f'`{remote.name}` takes {{"message": "a text of 1 to {MOST_MESSAGE:,} characters"}}.')
        return await _worked(peer, message)

    told = remote.description or f"Another agent, {card.name}: {card.description}"
    return Tool(
        name=remote.name,
        description=re.sub(r"\s+", " ", told)[:MOST_DESCRIPTION],
        parameters={
            "type": "object",
            "properties": {"message": {"type": "string", "description": "The task, with all that the agent has to know."}},
            "required": ["message"],
        },
        call=call,
        seconds=remote.seconds,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Peer:
    """How another agent is asked."""

    threads: Detached
    url: SplitResult
    key: str | None
    seconds: float

    async def ask(self, method: str, params: Mapping[str, Any]) -> Any:
        """One JSON-RPC request's result. Raises `ToolError`."""
        return await self.threads.call(_asked, self.url, self.key, method, params, self.seconds)


async def _worked(peer: _Peer, text: str) -> str:
    params = {
        "message": new_message("user", text).json_object(),
        "configuration": {"blocking": False, "acceptedOutputModes": ["text/plain"]},
    }
    result = await peer.ask("message/send", params)
    if isinstance(result, dict) and result.get("kind") == "message":
        return _text(_read(A2aMessage, result).parts)
    task, wait = _read(Task, result), FIRST_WAIT
    try:
        while task.status.state in UNDER_WAY:
            await asyncio.sleep(wait)
            wait = min(2 * wait, LONGEST_WAIT)
            task = _read(Task, await peer.ask("tasks/get", {"id": task.id, "historyLength": 0}))
    except asyncio.CancelledError:
        # Nobody waits for it any more, so that it need not go on; nor need we wait for it to stop.
        threading.Thread(target=_cancelled, args=(peer, task.id), daemon=True).start()
        raise
    return _answer(task)


def _answer(task: Task) -> str:
    said = "" if task.status.message is None else _text(task.status.message.parts)
    if task.status.state != "completed":
        raise ToolError(f"The other agent did not finish ({task.status.state}). {said}".rstrip())
    texts = [_text(artifact.parts) for artifact in task.artifacts or ()]
    return "\n\n".join(texts) or said or "The other agent finished and said nothing."


def _text(parts: Any) -> str:
    try:
        return text_of(parts)
    except Refused:
        return "(what it sent is no text)"


def _cancelled(peer: _Peer, number: str) -> None:
    with suppress(ToolError):
        _asked(peer.url, peer.key, "tasks/cancel", {"id": number}, CANCEL_SECONDS)


def _card(base: SplitResult, key: str | None, seconds: float) -> Card:
    for path in CARD_PATHS:
        status, body = _exchanged(base, "GET", base.path.rstrip("/") + path, None, key, seconds)
        if status != 404:
            break
    if status != 200:
        raise ToolError(f"its card could not be had: {base.netloc} answered {status}.")
    return _read(Card, _json(body))


def _asked(url: SplitResult, key: str | None, method: str, params: Mapping[str, Any], seconds: float) -> Any:
    path = (url.path or "/") + (f"?{url.query}" if url.query else "")
    status, body = _exchanged(url, "POST", path, json.dumps(request(method, params)).encode(), key, seconds)
    if status != 200:
        raise ToolError(f"The other agent answered {method} with HTTP {status}.")
    answer = _json(body)
    if not isinstance(answer, dict) or ("result" not in answer and not isinstance(answer.get("error"), dict)):
        raise ToolError(f"The other agent's answer to {method} is no JSON-RPC.")
    if "result" not in answer:
        raise ToolError(f"The other agent refused {method}: {str(answer['error'].get('message'))[:MOST_DESCRIPTION]}")
    return answer["result"]


def _exchanged(url: SplitResult, method: str, path: str, body: bytes | None, key: str | None, seconds: float) -> tuple[int, bytes]:
    """Status and body of one request; no redirect is followed. Raises `ToolError`."""
    assert url.hostname is not None
    headers = {"accept": "application/json"}
    if body is not None:
        headers["content-type"] = "application/json"
    if key is not None:
        headers["authorization"] = f"Bearer {key}"
    connection: http.client.HTTPConnection
    if url.scheme == "https":
        connection = http.client.HTTPSConnection(url.hostname, url.port, timeout=seconds, context=ssl.create_default_context())
    else:
        connection = http.client.HTTPConnection(url.hostname, url.port, timeout=seconds)
    try:
        connection.request(method, path, body=body, headers=headers)
        with connection.getresponse() as response:
            status, content = response.status, response.read(MOST_BYTES + 1)
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise ToolError(f"The other agent at {url.netloc} was not reached: {error or type(error).__name__}.") from None
    finally:
        connection.close()
    if len(content) > MOST_BYTES:
        raise ToolError(f"The other agent answered with more than {MOST_BYTES:,} bytes.")
    return status, content


def _json(body: bytes) -> Any:
    try:
        return loads(body)
    except ValueError as error:
        raise ToolError(f"The other agent's answer is no JSON: {error}.") from None


def _read(shape: type[Any], value: Any) -> Any:
    try:
        return shape.model_validate(value)
    except ValidationError as error:
        raise ToolError(f"The other agent's answer is no {shape.__name__}: {problem(error)}.") from None


def _address(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        parts, usable = urlsplit(""), False
    if not usable or parts.username or parts.password or parts.fragment or re.search(r"[\s\x00-\x1f]", url):
        raise ConfigError(f"`{url[:120]}` is no address of an agent. Write http(s)://HOST[:PORT][/PATH], without a user name in it.")
    return parts


def _key(remote: RemoteAgent, base: SplitResult) -> str | None:
    if remote.key_env is None:
        return None
    key = os.environ.get(remote.key_env, "").strip()
    if not key:
        raise ConfigError(f"The key of `{remote.name}` is to be in the environment variable `{remote.key_env}`, which is not set.")
    if base.scheme == "http" and base.hostname not in _NEAR:
        raise ConfigError(f"The key of `{remote.name}` would travel readable for everybody. Use https.")
    return key


def _same_origin(base: SplitResult, card: Card, name: str) -> SplitResult:
    """The address that a card gives for its requests; it must be on the host that the card came from."""
    if not card.protocol_version.startswith("0.") or card.preferred_transport != "JSONRPC":
        speaks = f"{card.protocol_version[:20]} over {card.preferred_transport[:20]}"
        raise AgentError(f"The agent `{name}` speaks A2A {speaks}; versions 0.2 and 0.3 over JSONRPC are understood.")
    try:
        url = _address(card.url)
    except ConfigError:
        raise AgentError(f"The card of the agent `{name}` has no usable address.") from None
    if (url.scheme, url.hostname, _port(url)) != (base.scheme, base.hostname, _port(base)):
        raise AgentError(
            f"The card of the agent `{name}` leads from {base.netloc} to {url.netloc[:120]}. Give that address yourself if you mean it."
        )
    return url


def _port(url: SplitResult) -> int:
    return url.port or {"https": 443}.get(url.scheme, 80)
