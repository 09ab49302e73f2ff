"""Around every request: its id, its line in the access log, its figures, the door that closes, and the last net for errors.

A line of the access log has method, route, status, milliseconds and request id. Prompts, keys and names stay out of it.
"""

from __future__ import annotations

import logging
import re
import time
import traceback
from collections.abc import Mapping
from typing import Any, Protocol

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from foreword.gateway import ids
from foreword.gateway.errors import SERVER, Refusal
from foreword.gateway.metrics import Metrics
from foreword.gateway.service import Traffic

HEADER = b"x-request-id"
UNMATCHED = "unmatched"
_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_WORK = ("/v1/", "/admin/")
"""Routes that a server that is about to stop no longer answers."""

access_log = logging.getLogger("foreword.gateway.access")
logger = logging.getLogger(__name__)


class Counted(Protocol):
    """What is told of requests."""

    @property
    def metrics(self) -> Metrics:
        """The server's figures."""
        ...

    @property
    def traffic(self) -> Traffic:
        """Requests under way."""
        ...


class Access:
    """ASGI middleware."""

    def __init__(self, app: ASGIApp, *, service: Counted, routes: Mapping[Any, str]) -> None:
        """Args: routes: each endpoint's route, as its template reads."""
        self._app = app
        self._service = service
        self._routes = dict(routes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        answer = _Answer(send, request_id=_request_id(scope))
        began = time.perf_counter()
        works = scope["path"].startswith(_WORK)
        self._service.metrics.began()
        if works:
            self._service.traffic.enter()
        try:
            await self._answer(scope, receive, answer, works=works)
        finally:
            if works:
                self._service.traffic.leave()
            seconds = time.perf_counter() - began
            route = self._routes.get(scope.get("endpoint"), UNMATCHED)
            self._service.metrics.ended(route=route, status=answer.status, seconds=seconds)
            method = scope["method"] if scope["method"] in _METHODS else "-"
            if access_log.isEnabledFor(logging.INFO):
                access_log.info("%s %s %d %.1f ms %s", method, route, answer.status, seconds * 1e3, answer.request_id)

    async def _answer(self, scope: Scope, receive: Receive, answer: _Answer, *, works: bool) -> None:
        try:
            if works and self._service.traffic.draining:
                await _closed().response()(scope, receive, answer)
            else:
                await self._app(scope, receive, answer)
        except Exception as error:
            # The message may quote a request, and stays out of the log.
            logger.error("request %s failed with %s:\n%s", answer.request_id, type(error).__name__, _where(error))
            if not answer.started:
                await _failed(answer.request_id).response()(scope, receive, answer)


class _Answer:
    """`send`, with the request id put into the headers and the status remembered."""

    def __init__(self, send: Send, *, request_id: str) -> None:
        self._send = send
        self.request_id = request_id
        self.status = 500
        self.started = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.started, self.status = True, message["status"]
            message = {**message, "headers": [*message["headers"], (HEADER, self.request_id.encode("ascii"))]}
        await self._send(message)


def _request_id(scope: Scope) -> str:
    """The client's own where it is harmless, else a new one."""
    given = next((value for name, value in scope["headers"] if name == HEADER), b"").decode("latin-1")
    return given if _ID.fullmatch(given) else f"req-{ids.fresh()}"


def _where(error: Exception) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    return "\n".join(f"  {frame.filename}:{frame.lineno} in {frame.name}" for frame in frames)


def _closed() -> Refusal:
    return Refusal(
        503,
        "The server is about to stop. Send the request to another one, or again later.",
        kind=SERVER,
        code="unavailable",
        headers={"retry-after": "5", "connection": "close"},
    )


def _failed(request_id: str) -> Refusal:
    return Refusal(500, f"The server failed to answer. Its log says more under {request_id}.", kind=SERVER, code="internal_error")
