"""A load generator that costs little itself: raw HTTP/1.1 over kept connections, each with one request under way at a time.

python -m benchmarks.gateway_load < load.json    prints one line of JSON

`load.json` has the fields of `Load`.
"""

from __future__ import annotations

import asyncio
import json
import re
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

ANSWER_SECONDS = 60.0
"""The most that one answer may take."""
_END = b"\r\n\r\n"
_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What is sent where.

    Attributes:
        bodies: a file with one request body in each line; sent from line `first` on, and from the beginning again after its end.
        at_once: connections.
        spread_seconds: over which the connections begin, one after the other, so that they do not all ask in the same moment.
    """

    url: str
    bodies: str
    first: int
    requests: int
    at_once: int
    spread_seconds: float = 0.0


@dataclass(slots=True, kw_only=True)
class Seen:
    """What came of it: seconds until the first piece of each answer and until its end, and how many answers were none."""

    first: list[float] = field(default_factory=list)
    whole: list[float] = field(default_factory=list)
    failed: int = 0
    said: str = ""

    def figures(self, seconds: float) -> dict[str, Any]:
        """Milliseconds, at quantiles."""
        return {
            "answered": len(self.whole),
            "failed": self.failed,
            "said": self.said,
            "seconds": seconds,
            "first_p50_ms": _at(self.first, 50),
            "first_p99_ms": _at(self.first, 99),
            "p50_ms": _at(self.whole, 50),
            "p99_ms": _at(self.whole, 99),
        }


class Connection(asyncio.Protocol):
    """One connection. `first` is the time of `time.perf_counter()` when the first event, or the head, of the answer had come."""

    def __init__(self) -> None:
        self.first = 0.0
        self._held = b""
        self._body_at = -1
        self._length: int | None = None
        self._done: asyncio.Future[bytes] | None = None
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        assert isinstance(transport, asyncio.Transport), "a TCP connection's"
        self._transport = transport

    async def ask(self, request: bytes) -> bytes:
        """The whole answer, head included. Raises `ConnectionError`, `TimeoutError`."""
        if self._transport is None or self._transport.is_closing():
            raise ConnectionError("the connection is closed")
        self._held, self._body_at, self.first = b"", -1, 0.0
        self._done = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return await asyncio.wait_for(self._done, ANSWER_SECONDS)

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        self._held += data
        if self._body_at < 0:
            end = self._held.find(_END)
            if end < 0:
                return
            self._body_at = end + len(_END)
            length = _LENGTH.search(self._held, 0, end)
            self._length = int(length[1]) if length else None
        if not self.first and (self._length is not None or self._held.find(b"data:", self._body_at) >= 0):
            self.first = time.perf_counter()
        if self._is_whole() and self._done is not None and not self._done.done():
            self._done.set_result(self._held)

    def _is_whole(self) -> bool:
        if self._length is not None:
            return len(self._held) - self._body_at >= self._length
        # In chunks; no JSON ends as their end does.
        return self._held.endswith(b"\r\n0\r\n\r\n")

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        if self._done is not None and not self._done.done():
            self._done.set_exception(ConnectionError("the connection was closed in the middle of an answer"))

    def close(self) -> None:
        """Hangs up."""
        if self._transport is not None:
            self._transport.close()


async def run(load: Load) -> dict[str, Any]:
    """Sends the load; see `Seen.figures`."""
    target = urlsplit(load.url)
    requests, seen = _requests(load, target.netloc, target.path), Seen()

    async def one(number: int) -> None:
        await asyncio.sleep(load.spread_seconds * number / load.at_once)
        await _send_all(target.hostname or "", target.port or 80, requests, seen)

    began = time.perf_counter()
    await asyncio.gather(*(one(number) for number in range(load.at_once)))
    return seen.figures(time.perf_counter() - began)


async def _send_all(host: str, port: int, requests: Iterator[bytes], seen: Seen) -> None:
    """Takes requests from those that all connections share until there are none left."""
    connection: Connection | None = None
    for request in requests:
        try:
            if connection is None:
                _, connection = await asyncio.get_running_loop().create_connection(Connection, host, port)
            began = time.perf_counter()
            answer = await connection.ask(request)
            ended = time.perf_counter()
        except (OSError, TimeoutError) as error:
            seen.failed, seen.said = seen.failed + 1, seen.said or repr(error)
            if connection is not None:
                connection.close()
            connection = None
            continue
        if answer.startswith(b"HTTP/1.1 200") and _is_whole(answer):
            seen.first.append(connection.first - began)
            seen.whole.append(ended - began)
        else:
            seen.failed, seen.said = seen.failed + 1, seen.said or answer[:1000].decode("latin-1")
    if connection is not None:
        connection.close()


def _is_whole(answer: bytes) -> bool:
    if b"text/event-stream" in answer[:2000]:
        return b"data: [DONE]" in answer[-200:]
    return b'"choices"' in answer


def _requests(load: Load, host: str, path: str) -> Iterator[bytes]:
    lines = Path(load.bodies).read_bytes().splitlines()
    head = f"POST {path} HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\nauthorization: Bearer none\r\ncontent-length: "
    for number in range(load.first, load.first + load.requests):
        body = lines[number % len(lines)]
        yield b"%b%d\r\n\r\n%b" % (head.encode(), len(body), body)


def _at(values: Sequence[float], percent: int) -> float | None:
    if len(values) < 2:
        return 1e3 * values[0] if values else None
    return 1e3 * statistics.quantiles(values, n=100, method="inclusive")[percent - 1]


def as_input(load: Load) -> bytes:
    """What the program reads."""
    return json.dumps(asdict(load)).encode()


if __name__ == "__main__":
    sys.stdout.write(json.dumps(asyncio.run(run(Load(**json.load(sys.stdin))))) + "\n")
