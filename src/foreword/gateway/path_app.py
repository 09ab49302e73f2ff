"""The served path as an ASGI application: chat requests walk along the path, and so do texts that the model in this process goes on from.

Nothing but this file and `access.py` stands between the server and the stages, and no framework does: a request costs what its stages cost.
Every other route is answered by the application behind.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING

from starlette.types import ASGIApp, Receive, Scope, Send

from foreword.gateway.errors import SERVER, ClientGone, Refusal
from foreword.gateway.passage import Event, Passage, Reply, TargetError
from foreword.gateway.path import Path
from foreword.gateway.path_requests import chat_of, passage_of, text_of
from foreword.gateway.path_settings import PathSettings
from foreword.gateway.path_wire import PathRequest
from foreword.gateway.reading import check_type, read_bytes
from foreword.gateway.shaping import as_events, with_id
from foreword.gateway.streaming import DONE
from foreword.gateway.tenants import EVERYBODY, Keyring

if TYPE_CHECKING:
    from foreword.gateway.path_settings import TaskSettings

CHAT, TEXTS = "/v1/chat/completions", "/v1/completions"
_JSON = (b"content-type", b"application/json")
_EVENTS = ((b"content-type", b"text/event-stream"), (b"cache-control", b"no-cache"), (b"x-accel-buffering", b"no"))
_CONTROL = dict.fromkeys([*range(32), 127], " ")

UNWATCHED_SECONDS = 0.05
"""What an answer may take before it is watched whether its client is still there."""

logger = logging.getLogger(__name__)


class PathApp:
    """Answers chat requests along a path."""

    def __init__(
        self,
        path: Path,
        settings: PathSettings,
        *,
        behind: ASGIApp,
        keys: Keyring | None,
        body_bytes: int,
        texts: Path | None = None,
    ) -> None:
        """Args: behind: answers every other route; texts: the path of `/v1/completions`, which is answered behind where there is none."""
        self._behind, self._keys, self._body_bytes = behind, keys, body_bytes
        self._default: TaskSettings = settings.task("default")
        self._ways: dict[str, tuple[Path, Callable[[bytes], PathRequest], str]] = {CHAT: (path, chat_of, "chatcmpl")}
        if texts is not None:
            self._ways[TEXTS] = (texts, lambda raw: text_of(raw, settings), "cmpl")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        way = self._ways.get(scope["path"]) if scope["type"] == "http" else None
        if way is None:
            await self._behind(scope, receive, send)
            return
        path, read, start = way
        scope["endpoint"] = scope["path"]
        try:
            if scope["method"] != "POST":
                words = f"This route takes POST; got {scope['method'][:16]}."
                raise Refusal(405, words, code="method_not_allowed", headers={"allow": "POST"})
            passage = await self._passage(scope, receive, read, start)
        except Refusal as refusal:
            await _refuse(send, refusal, {})
            return
        except ClientGone:
            return
        await _answer(path, passage, receive, send)

    async def _passage(self, scope: Scope, receive: Receive, read: Callable[[bytes], PathRequest], start: str) -> Passage:
        began = time.perf_counter()
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        tenant = EVERYBODY if self._keys is None else self._keys.tenant(headers.pop("authorization", None))
        check_type(headers.get("content-type", ""))
        request = read(await read_bytes(receive, headers.get("content-length", ""), self._body_bytes))
        headers.pop("authorization", None)
        return passage_of(request, tenant=tenant, task=self._default, headers=headers, began=began, start=start)


async def _answer(path: Path, passage: Passage, receive: Receive, send: Send) -> None:
    """In this very task; whether the client leaves is looked at only where the answer takes a while, as looking costs time too."""
    walking, watching = asyncio.current_task(), []
    assert walking is not None, "a request is answered in a task"
    left = False

    async def watch() -> None:
        nonlocal left
        await _gone(receive)
        # The client has left: what is under way for it is given up, and what it took is billed all the same.
        left = True
        walking.cancel()

    begin = asyncio.get_running_loop().call_later(UNWATCHED_SECONDS, lambda: watching.append(asyncio.ensure_future(watch())))
    try:
        await _walked(path, passage, send)
    except asyncio.CancelledError:
        if not left:
            raise
        walking.uncancel()
    finally:
        begin.cancel()
        for task in watching:
            task.cancel()


async def _walked(path: Path, passage: Passage, send: Send) -> None:
    try:
        await path.walk(passage)
        if passage.events is not None:
            await _stream(path, passage, passage.events, send)
        else:
            assert passage.reply is not None, "`infer` sets a reply, or refuses"
            await _send_whole(send, passage, passage.reply)
    except Refusal as refusal:
        passage.status = "failed" if refusal.status >= 500 else "refused"
        await path.bill(passage)
        await _refuse(send, refusal, passage.told)
    except asyncio.CancelledError:
        passage.status = "cancelled"
        await asyncio.shield(path.bill(passage))
        raise
    except Exception:
        # A fault of this server; what the models took until then is owed all the same.
        passage.status = "failed"
        await path.bill(passage)
        raise


async def _stream(path: Path, passage: Passage, events: AsyncIterator[Event], send: Send) -> None:
    try:
        await send({"type": "http.response.start", "status": 200, "headers": [*_EVENTS, *_headers(passage.told)]})
        async for event in events:
            if event.data:
                await send({"type": "http.response.body", "body": with_id(event.data, passage.id), "more_body": True})
    except TargetError as error:
        passage.status = "failed"
        refusal = Refusal(502, f"The answer broke off: {error} Send the request again.", kind=SERVER, code="upstream_failed")
        last = b"data: %b\n\n" % refusal.body
        await path.bill(passage)
    except BaseException:
        # The client has left, or cannot be written to: the model is told, before what it said is billed.
        await events.aclose()  # type: ignore[attr-defined]
        raise
    else:
        await path.finish(passage)
        # A comment, which clients leave out: what the answer cost is known only now.
        last = f": foreword-cost {passage.told.get('foreword-cost', '')}\n\n".encode() + DONE
    await send({"type": "http.response.body", "body": last, "more_body": False})


async def _send_whole(send: Send, passage: Passage, reply: Reply) -> None:
    body, kind = with_id(reply.body, passage.id), (_JSON,)
    if passage.asked.streams:
        body, kind = as_events(body), _EVENTS
    told = {**dict(reply.headers), **passage.told} if reply.headers else passage.told
    headers = [*kind, (b"content-length", str(len(body)).encode()), *_headers(told)]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _refuse(send: Send, refusal: Refusal, told: dict[str, str]) -> None:
    body = refusal.body
    length = (b"content-length", str(len(body)).encode())
    headers = [_JSON, length, *_headers({**refusal.headers, **told})]
    await send({"type": "http.response.start", "status": refusal.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _headers(told: dict[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.encode("latin-1"), _value(value)) for name, value in told.items()]


def _value(text: str) -> bytes:
    """A header's value; a client's own words may be in it, and must not end it."""
    return (text if text.isprintable() else text.translate(_CONTROL)).encode("latin-1", "replace")


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
