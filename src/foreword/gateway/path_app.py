"""The served path as an ASGI application: chat requests walk along the path, everything else goes to the application behind it.

Nothing but this file and `access.py` stands between the server and the stages, and no framework does: a request costs what its stages cost.
"""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec
from starlette.types import ASGIApp, Receive, Scope, Send

from foreword.gateway.errors import SERVER, ClientGone, Refusal
from foreword.gateway.passage import Event, Passage, Reply, TargetError
from foreword.gateway.path import Path
from foreword.gateway.path_settings import PathSettings
from foreword.gateway.path_wire import REQUEST, PathRequest
from foreword.gateway.reading import check_type, decode, read_bytes
from foreword.gateway.streaming import DONE
from foreword.gateway.tenants import EVERYBODY, Keyring

if TYPE_CHECKING:
    from foreword.gateway.path_settings import TaskSettings

CHAT = "/v1/chat/completions"
MOST_USER = 128
_ID = re.compile(rb'\A((?:data: ?)?\{\s*"id"\s*:\s*")[^"\\]*"')
_JSON = (b"content-type", b"application/json")
_EVENTS = ((b"content-type", b"text/event-stream"), (b"cache-control", b"no-cache"), (b"x-accel-buffering", b"no"))

logger = logging.getLogger(__name__)


class PathApp:
    """Answers chat requests along a path."""

    def __init__(self, path: Path, settings: PathSettings, *, behind: ASGIApp, keys: Keyring | None, body_bytes: int) -> None:
        """Args: behind: answers every other route."""
        self._path, self._behind, self._keys, self._body_bytes = path, behind, keys, body_bytes
        self._default: TaskSettings = settings.task("default")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http" or scope["path"] != CHAT or scope["method"] != "POST":
            await self._behind(scope, receive, send)
            return
        scope["endpoint"] = CHAT
        try:
            passage = await self._passage(scope, receive)
        except Refusal as refusal:
            await _refuse(send, refusal, {})
            return
        except ClientGone:
            return
        await self._answer(passage, receive, send)

    async def _passage(self, scope: Scope, receive: Receive) -> Passage:
        began, at = time.perf_counter(), datetime.now(UTC)
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        tenant = EVERYBODY if self._keys is None else self._keys.tenant(headers.get("authorization"))
        check_type(headers.get("content-type", ""))
        request = decode(REQUEST, await read_bytes(receive, headers.get("content-length", ""), self._body_bytes))
        _check(request)
        headers.pop("authorization", None)
        return Passage(
            id=f"chatcmpl-{secrets.token_hex(12)}",
            at=at,
            began=began,
            tenant=tenant,
            user=request.user[:MOST_USER] if isinstance(request.user, str) else "",
            asked=request,
            request=request,
            headers=headers,
            task=self._default,
            deadline=asyncio.get_running_loop().time() + self._default.seconds,
        )

    async def _answer(self, passage: Passage, receive: Receive, send: Send) -> None:
        walking = asyncio.ensure_future(self._walked(passage, send))
        watching = asyncio.ensure_future(_gone(receive))
        try:
            await asyncio.wait({walking, watching}, return_when=asyncio.FIRST_COMPLETED)
            if walking.done():
                await walking
                return
            # The client has left: what is under way for it is given up, and what it took is billed all the same.
            walking.cancel()
            await asyncio.gather(walking, return_exceptions=True)
        finally:
            watching.cancel()

    async def _walked(self, passage: Passage, send: Send) -> None:
        try:
            await self._path.walk(passage)
            if passage.events is not None:
                await self._stream(passage, passage.events, send)
            else:
                assert passage.reply is not None, "`infer` sets a reply, or refuses"
                await _send_whole(send, passage, passage.reply)
        except Refusal as refusal:
            passage.status = "failed" if refusal.status >= 500 else "refused"
            await self._path.bill(passage)
            await _refuse(send, refusal, passage.told)
        except asyncio.CancelledError:
            passage.status = "cancelled"
            await asyncio.shield(self._path.bill(passage))
            raise

    async def _stream(self, passage: Passage, events: AsyncIterator[Event], send: Send) -> None:
        try:
            await send({"type": "http.response.start", "status": 200, "headers": [*_EVENTS, *_headers(passage)]})
            async for event in events:
                if event.data:
                    await send({"type": "http.response.body", "body": with_id(event.data, passage.id), "more_body": True})
        except TargetError as error:
            passage.status = "failed"
            refusal = Refusal(502, f"The answer broke off: {error} Send the request again.", kind=SERVER, code="upstream_failed")
            await send({"type": "http.response.body", "body": b"data: %b\n\n" % refusal.body, "more_body": True})
            await self._path.bill(passage)
        except asyncio.CancelledError:
            await events.aclose()  # type: ignore[attr-defined]
            raise
        else:
            await self._path.finish(passage)
            # A comment, which clients leave out: what the answer cost is known only now.
            cost = f": foreword-cost {passage.told.get('foreword-cost', '')}\n\n".encode()
            await send({"type": "http.response.body", "body": cost + DONE, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _send_whole(send: Send, passage: Passage, reply: Reply) -> None:
    body, kind = with_id(reply.body, passage.id), (_JSON,)
    if passage.asked.streams:
        body, kind = as_events(body), _EVENTS
    headers = [*kind, (b"content-length", str(len(body)).encode()), *_headers(passage)]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _refuse(send: Send, refusal: Refusal, told: dict[str, str]) -> None:
    body = refusal.body
    headers = {**refusal.headers, **told}
    encoded = [(name.encode("latin-1"), value.encode("latin-1", "replace")) for name, value in headers.items()]
    length = (b"content-length", str(len(body)).encode())
    await send({"type": "http.response.start", "status": refusal.status, "headers": [_JSON, length, *encoded]})
    await send({"type": "http.response.body", "body": body})


def with_id(data: bytes, new: str) -> bytes:
    """An answer, or a piece of one, under the id that feedback names it by. An id that does not stand first is left as it is."""
    return _ID.sub(lambda found: found[1] + new.encode() + b'"', data, count=1)


def as_events(body: bytes) -> bytes:
    """A whole answer as the stream that a client asked for: one chunk for each choice and its end, the usage, and `[DONE]`."""
    whole = msgspec.json.decode(body)
    head = {name: whole.get(name) for name in ("id", "created", "model")} | {"object": "chat.completion.chunk"}
    chunks = []
    for choice in whole.get("choices", []):
        index = choice.get("index", 0)
        delta = {name: value for name, value in choice.get("message", {}).items() if value is not None}
        for number, call in enumerate(delta.get("tool_calls", ())):
            call["index"] = number
        chunks.append({**head, "choices": [{"index": index, "delta": delta, "finish_reason": None}]})
        chunks.append({**head, "choices": [{"index": index, "delta": {}, "finish_reason": choice.get("finish_reason")}]})
    chunks.append({**head, "choices": [], "usage": whole.get("usage")})
    return b"".join(b"data: %b\n\n" % msgspec.json.encode(chunk) for chunk in chunks) + DONE


def _headers(passage: Passage) -> list[tuple[bytes, bytes]]:
    return [(name.encode("latin-1"), value.encode("latin-1", "replace")) for name, value in passage.told.items()]


def _check(request: PathRequest) -> None:
    """Raises `Refusal` (400) for what contradicts itself."""
    if not request.messages and request.prompt is msgspec.UNSET:
        raise Refusal(400, "`messages` is empty. Give at least the user's turn.", code="invalid_value", param="messages")
    limits = {limit for limit in (request.max_tokens, request.max_completion_tokens) if isinstance(limit, int)}
    if len(limits) > 1:
        raise Refusal(
            400, "`max_tokens` and `max_completion_tokens` differ. Send one of them.", code="invalid_value", param="max_completion_tokens"
        )
    if request.stream_options not in (None, msgspec.UNSET) and not request.streams:
        raise Refusal(400, '`stream_options` needs `"stream": true`.', code="invalid_value", param="stream_options")


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
