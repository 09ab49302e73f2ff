"""Request bodies: bounded in size and time, decoded strictly, and refused by the name of the field that is wrong."""

from __future__ import annotations

import asyncio
import re
from typing import TypeVar

import msgspec
from starlette.requests import Request
from starlette.types import Receive

from foreword.gateway.errors import ClientGone, Refusal

BODY_SECONDS = 60.0
_FIELD = re.compile(r" - at `(?:key in )?\$\.?(?P<path>[^`]*)`$")
_UNKNOWN = re.compile(r"unknown field `(?P<name>[^`]*)`")
_MOST_FIELD = 80

Body = TypeVar("Body")


async def read(request: Request, decoder: msgspec.json.Decoder[Body], *, most_bytes: int, empty: bytes | None = None) -> Body:
    """The body, decoded.

    Args:
        empty: what an empty body stands for; None where one is refused.

    Raises:
        Refusal: 400 bad JSON or a field that cannot be, 408 too slow, 413 too large, 415 not JSON.
        ClientGone: the client left while it was sending.
    """
    raw = await read_bytes(request.receive, request.headers.get("content-length", ""), most_bytes)
    if not raw and empty is not None:
        return decoder.decode(empty)
    check_type(request.headers.get("content-type", ""))
    return decode(decoder, raw)


async def read_bytes(receive: Receive, declared: str, most_bytes: int) -> bytes:
    """The body as it came. Args: declared: the length that the client says. Raises as `read`."""
    if declared.isdecimal() and int(declared[:20]) > most_bytes:
        raise _too_large(most_bytes)
    try:
        async with asyncio.timeout(BODY_SECONDS):
            return await _bytes(receive, most_bytes, int(declared[:20]) if declared.isdecimal() else -1)
    except TimeoutError:
        raise Refusal(408, f"The body did not arrive within {BODY_SECONDS:.0f} seconds. Send it again.", code="timeout") from None


def decode(decoder: msgspec.json.Decoder[Body], raw: bytes) -> Body:
    """JSON to a struct. Raises `Refusal` (400) that names the field."""
    try:
        return decoder.decode(raw)
    except msgspec.ValidationError as error:
        raise _invalid(str(error)) from None
    except RecursionError:
        raise Refusal(400, "The body is nested too deeply. Send a flatter one.", code="invalid_json") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Refusal(400, f"The body is not JSON in UTF-8: {error}. Mend it and send it again.", code="invalid_json") from None


async def _bytes(receive: Receive, most: int, whole: int) -> bytes:
    """Args: whole: the length that the client says, after which nothing comes; below 0 where it says none."""
    pieces, total, more = [], 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        piece = message.get("body", b"")
        total += len(piece)
        if total > most:
            raise _too_large(most)
        pieces.append(piece)
        # Some servers say only with a further, empty piece that the last one was the last.
        more = message.get("more_body", False) and total != whole
    return b"".join(pieces)


def check_type(given: str) -> None:
    """Raises `Refusal` (415) unless the body is said to be JSON."""
    # A web page can post text/plain to any address without asking first, and JSON it cannot.
    if given.partition(";")[0].strip().lower() != "application/json":
        raise Refusal(
            415, "The body must be JSON: send it with the header `Content-Type: application/json`.", code="unsupported_media_type"
        )


def _too_large(most: int) -> Refusal:
    return Refusal(413, f"The body is larger than the {most:,} bytes that this server takes. Send a smaller one.", code="body_too_large")


def _invalid(reason: str) -> Refusal:
    """msgspec says `Expected … - at `$.messages[0].role``; the place is OpenAI's `param`."""
    place = _FIELD.search(reason)
    path = place["path"] if place else ""
    unknown = _UNKNOWN.search(reason)
    if unknown:
        name = unknown["name"][:_MOST_FIELD]
        param = f"{path}.{name}" if path else name
        return Refusal(400, f"`{param}` is not a field that this server knows. Leave it out.", code="unknown_parameter", param=param)
    words = _FIELD.sub("", reason)[:200]
    param = path[:_MOST_FIELD] or None
    where = f"`{param}`" if param else "The body"
    return Refusal(400, f"{where} cannot be used: {words}. Mend it and send it again.", code="invalid_value", param=param)
