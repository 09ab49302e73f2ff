"""The model in this process as a target of the path: requests go to its own application as they would over a socket, without one.

So a model that runs here has everything that `foreword serve` has without a path: prefixes by name, gates, stored prompts, strategies.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import msgspec
from starlette.types import ASGIApp

from foreword.cost.rates import Consumed
from foreword.gateway.errors import INVALID
from foreword.gateway.naming import Names
from foreword.gateway.passage import Call, Event, Reply, TargetError
from foreword.gateway.path_settings import ModelSettings
from foreword.gateway.path_wire import CHUNK, REPLY, TextCall
from foreword.gateway.service import TENANT
from foreword.gateway.streaming import DONE
from foreword.gateway.tenants import Tenant
from foreword.gateway.upstream import consumed_of, event_of, outgoing, wants_usage
from foreword.gateway.wire import ErrorBody, ErrorDetail, PromptCall, StreamOptions

CHAT, TEXTS = "/v1/chat/completions", "/v1/completions"
_END = b"\n\n"
_PASSED_ON = (
    b"foreword-prefix",
    b"foreword-prompt",
    b"foreword-stands-for",
    b"foreword-strategy",
    b"foreword-calls",
    b"foreword-status",
)

_ERROR = msgspec.json.Decoder(ErrorBody)


class Embedded:
    """Meets `Target` and `Versioned`."""

    def __init__(self, name: str, settings: ModelSettings, app: ASGIApp, *, names: Names | None = None) -> None:
        """Args: app: answers chat requests and texts under the model's own name, `settings.model`; names: looks its prefixes up."""
        self.name = name
        self._settings, self._app, self.names = settings, app, names

    def own(self, model: str) -> str:
        """What the model itself calls `model`."""
        _, colon, prefix = model.partition(":")
        return f"{self._settings.model}{colon}{prefix}"

    def version(self, model: str, tenant: Tenant) -> str:
        """The prefix's version, or versions; see `Versioned`."""
        found = None if self.names is None else self.names.find(self.own(model), tenant)
        if found is None:
            return model.partition(":")[2]
        return "+".join(f"{reference.name}@v{reference.version}" for reference in found.references)

    async def complete(self, call: Call) -> Reply:
        """A whole answer; see `Target`."""
        began = time.perf_counter()
        exchange = _Exchange(self._app, call, self._body(call, stream=False))
        try:
            raw = b"".join([piece async for piece in exchange.pieces(call.seconds)])
        except TimeoutError:
            raise TargetError(f"`{self.name}` took longer than {call.seconds:.0f} seconds.", status="timeout") from None
        finally:
            exchange.close()
        self._check(exchange, raw)
        body = REPLY.decode(raw)
        choice = body.choices[0]
        return Reply(
            model=call.model,
            body=raw,
            text=choice.message.content if isinstance(choice.message.content, str) else choice.text,
            finish_reason=choice.finish_reason,
            consumed=_timed(consumed_of(body.usage), time.perf_counter() - began),
            tool_calls=bool(choice.message.tool_calls),
            headers=exchange.told(),
        )

    async def stream(self, call: Call) -> AsyncIterator[Event]:
        """An answer piece by piece; see `Target`."""
        began = time.perf_counter()
        exchange = _Exchange(self._app, call, self._body(call, stream=True))
        rest, begun = b"", False
        try:
            async for piece in exchange.pieces(call.seconds):
                if exchange.status != 200:
                    rest += piece
                    continue
                *events, rest = (rest + piece).split(_END)
                for event in events:
                    if event + _END != DONE and event.startswith(b"data:"):
                        begun = True
                        yield self._read(event, call, began)
        except TimeoutError:
            raise TargetError(f"`{self.name}` took longer than {call.seconds:.0f} seconds.", status="timeout", begun=begun) from None
        finally:
            exchange.close()
        self._check(exchange, rest)

    def _body(self, call: Call, *, stream: bool) -> bytes:
        request = outgoing(call.request, call.model, self._settings, stream=stream)
        if isinstance(request, TextCall):
            options = StreamOptions(include_usage=True) if stream else None
            limit = request.output_limit()
            return msgspec.json.encode(
                msgspec.structs.replace(request.texts, model=request.model, stream=stream, stream_options=options, max_tokens=limit)
            )
        if self._settings.prompt is not None:
            request = msgspec.structs.replace(request, prompt=PromptCall(id=self._settings.prompt))
        return msgspec.json.encode(request)

    def _read(self, event: bytes, call: Call, began: float) -> Event:
        chunk = CHUNK.decode(event.removeprefix(b"data:"))
        if chunk.error is not None:
            raise TargetError(f"`{self.name}` failed in the middle of its answer.", status="broken", begun=True)
        read = event_of(event + _END, chunk, wants_usage=wants_usage(call.request))
        if isinstance(call.request, TextCall):
            read = replace(read, text="".join(part.text for part in chunk.choices))
        if read.consumed is None:
            return read
        return replace(read, consumed=_timed(read.consumed, time.perf_counter() - began))

    def _check(self, exchange: _Exchange, raw: bytes) -> None:
        if exchange.status == 200:
            return
        if exchange.status < 500 and exchange.status not in (408, 429):
            told = _told(raw)
            # It speaks of itself by its own name, which clients of the path do not know.
            words = told.message.replace(f"`{self._settings.model}", f"`{self.name}")
            raise TargetError(
                words, status="refused", http_status=exchange.status, refusal=words.encode(), code=told.code, param=told.param
            )
        after = exchange.headers.get(b"retry-after", b"")
        raise TargetError(
            f"`{self.name}` cannot answer now.",
            status="unavailable",
            http_status=exchange.status,
            retry_after=float(after) if after.isdigit() else None,
        )


class _Exchange:
    """One request to an ASGI application, in a task of its own."""

    def __init__(self, app: ASGIApp, call: Call, body: bytes) -> None:
        self.status = 0
        self.headers: dict[bytes, bytes] = {}
        self._body: bytes | None = body
        self._left = asyncio.Event()
        self._pieces: asyncio.Queue[bytes | None] = asyncio.Queue()
        route = TEXTS if isinstance(call.request, TextCall) else CHAT
        scope: dict[str, Any] = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": "POST",
            "scheme": "http",
            "path": route,
            "raw_path": route.encode(),
            "root_path": "",
            "query_string": b"",
            "headers": [(b"content-type", b"application/json"), (b"x-request-id", call.request_id.encode())],
            "client": None,
            "server": None,
            TENANT: call.tenant,
        }
        self._task = asyncio.ensure_future(self._run(app, scope))

    def told(self) -> tuple[tuple[str, str], ...]:
        """Headers of the answer that the client should see too."""
        return tuple((name.decode("latin-1"), self.headers[name].decode("latin-1")) for name in _PASSED_ON if name in self.headers)

    async def pieces(self, seconds: float) -> AsyncIterator[bytes]:
        """The answer's body as it comes; `status` and `headers` are set before the first piece. Raises `TimeoutError` after `seconds`."""
        ends_at = asyncio.get_running_loop().time() + seconds
        while True:
            # A timeout belongs to the task that waits, and each piece may be waited for in another one.
            async with asyncio.timeout_at(ends_at):
                piece = await self._pieces.get()
            if piece is None:
                break
            yield piece
        await self._task

    def close(self) -> None:
        """Gives the request up where it is not finished, as a client does that leaves."""
        self._left.set()

    async def _run(self, app: ASGIApp, scope: dict[str, Any]) -> None:
        try:
            await app(scope, self._receive, self._send)
        finally:
            self._pieces.put_nowait(None)

    async def _receive(self) -> dict[str, Any]:
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": body, "more_body": False}
        await self._left.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self.status, self.headers = message["status"], dict(message["headers"])
        elif message.get("body"):
            self._pieces.put_nowait(message["body"])


def _timed(consumed: Consumed | None, seconds: float) -> Consumed | None:
    """An own machine is paid by its time; that of requests that are computed together is counted for each of them."""
    return None if consumed is None else replace(consumed, machine_seconds=seconds)


def _told(raw: bytes) -> ErrorDetail:
    try:
        return _ERROR.decode(raw).error
    except msgspec.MsgspecError:
        return ErrorDetail(message="The model does not take this request.", type=INVALID, param=None, code=None)
