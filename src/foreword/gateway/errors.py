"""What a client is told when something goes wrong: one table from Foreword's errors to HTTP, and OpenAI's shape of an error.

A message to a client never holds a path of this machine; what it leaves out stands in the server's log.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Mapping

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from foreword.errors import (
    ConfigError,
    ConstraintError,
    ForewordError,
    Overloaded,
    PrefixError,
    PrefixFileError,
    PrefixMismatch,
    RegistryError,
    ServingError,
    StoreError,
    WindowError,
)
from foreword.gateway.wire import ErrorBody, ErrorDetail

INVALID, SERVER, BUSY = "invalid_request_error", "server_error", "rate_limit_error"
MOST_CHARACTERS = 1_000
CLIENT_GONE = 499
"""Logged, and never seen by anybody: the client had left."""

_TABLE: tuple[tuple[type[ForewordError], int, str, str], ...] = (
    (Overloaded, 429, BUSY, "overloaded"),
    (ConstraintError, 400, INVALID, "invalid_constraint"),
    (ServingError, 503, SERVER, "unavailable"),
    (WindowError, 400, INVALID, "context_length_exceeded"),
    (ConfigError, 400, INVALID, "invalid_value"),
    (RegistryError, 400, INVALID, "invalid_value"),
    (StoreError, 404, INVALID, "model_not_found"),
    (PrefixMismatch, 422, INVALID, "prefix_mismatch"),
    (PrefixFileError, 503, SERVER, "prefix_unavailable"),
    (PrefixError, 422, INVALID, "prefix_unusable"),
    (ForewordError, 500, SERVER, "internal_error"),
)
"""From the particular to the general: the first class that fits counts."""

_PATH = re.compile(r"(?<![\w/.])/(?:[\w.@+-]+/)+[\w.@+-]*")

logger = logging.getLogger(__name__)


class Refusal(Exception):
    """An answer other than 200, as the client is to see it."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = INVALID,
        code: str | None = None,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.detail = ErrorDetail(message=message[:MOST_CHARACTERS], type=kind, param=param, code=code)
        self.headers = dict(headers or {})

    @property
    def body(self) -> bytes:
        """The error as JSON."""
        return msgspec.json.encode(ErrorBody(error=self.detail))

    def response(self) -> Response:
        """The whole answer."""
        return Response(self.body, status_code=self.status, headers=self.headers, media_type="application/json")


class ClientGone(Exception):
    """The client closed its connection before its answer was complete."""


def not_found(message: str, *, param: str | None = "model") -> Refusal:
    """A model, or a prefix, that this client cannot use."""
    return Refusal(404, message, code="model_not_found", param=param)


def refusal_of(error: ForewordError) -> Refusal:
    """What a client is told of an error raised on purpose."""
    status, kind, code = next((status, kind, code) for cls, status, kind, code in _TABLE if isinstance(error, cls))
    headers = {"retry-after": str(max(1, math.ceil(error.retry_after)))} if isinstance(error, Overloaded) else None
    if status >= 500 or isinstance(error, PrefixError):
        logger.warning("a request ended with %d %s: %s", status, code, error)
    return Refusal(status, _public(error), kind=kind, code=code, headers=headers)


def without_paths(text: str) -> str:
    """The text with the paths of this machine left out."""
    return _PATH.sub("(path)", text)


def _public(error: ForewordError) -> str:
    """The error's own words where they are about the request; other words where they are about this machine."""
    if isinstance(error, PrefixMismatch):
        fields = ", ".join(error.differences)
        return f"This prefix was made for another model than this server's; these fields differ: {fields}. Choose another prefix."
    if isinstance(error, PrefixFileError):
        return "The file of this prefix is damaged, or is being replaced just now. Choose another prefix; the server's log says more."
    if isinstance(error, StoreError):
        return "There is no such prefix. `GET /v1/models` lists what there is."
    if isinstance(error, Overloaded | ServingError | WindowError | ConfigError | RegistryError | PrefixError):
        return without_paths(str(error))
    return "The server cannot answer this request. Its log says why, under this answer's x-request-id."


async def on_refusal(request: Request, error: Exception) -> Response:
    """Starlette's handler for `Refusal`."""
    assert isinstance(error, Refusal)
    return error.response()


async def on_foreword_error(request: Request, error: Exception) -> Response:
    """Starlette's handler for `ForewordError`."""
    assert isinstance(error, ForewordError)
    return refusal_of(error).response()


async def on_client_gone(request: Request, error: Exception) -> Response:
    """Starlette's handler for `ClientGone`: nobody reads this."""
    return Response(status_code=CLIENT_GONE)


async def on_http_exception(request: Request, error: Exception) -> Response:
    """Starlette's own refusals: unknown routes and methods."""
    assert isinstance(error, HTTPException)
    if error.status_code == 404:
        refusal = Refusal(404, "There is no such route. /openapi.json lists those that there are.", code="unknown_route")
    elif error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "another method")
        refusal = Refusal(405, f"This route takes {allowed}; got {request.method[:16]}.", code="method_not_allowed", headers=error.headers)
    else:
        refusal = Refusal(error.status_code, error.detail, headers=error.headers)
    return refusal.response()
