"""An OpenAI-compatible server on a real socket that does what a test says, request by request, and remembers what it was sent.

    with upstream(refuse(429, headers={"retry-after": "0"}), answer("Hello.")) as fake:
        ...                                     # ask something of fake.url
    assert fake.seen[0].body["model"] == "big"
    fake.script(hang())                         # from here on

Behaviours are taken in their order, and the last one stays. A behaviour is a coroutine function that takes an `Exchange`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

PATIENCE = 30.0
"""Seconds after which a test gives up waiting; a busy machine may take long."""
USAGE = {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}
RICH_USAGE = {
    "prompt_tokens": 1200,
    "completion_tokens": 80,
    "total_tokens": 1280,
    "prompt_tokens_details": {"cached_tokens": 1000},
    "completion_tokens_details": {"reasoning_tokens": 30},
}
"""With tokens of a cache and of reasoning, as OpenAI tells them."""


@dataclass(slots=True, kw_only=True, eq=False)
class Seen:
    """A request as it came.

    Attributes:
        headers: names in lower case.
        body: None where it is no JSON.
        disconnected: whether the client left before its answer was complete.
    """

    method: str
    path: str
    headers: dict[str, str]
    raw: bytes
    body: Any
    at: float
    connection: int
    disconnected: bool = False
    ended: bool = False

    @property
    def streams(self) -> bool:
        """Whether a stream is wanted."""
        return isinstance(self.body, dict) and self.body.get("stream") is True


class Exchange:
    """One request, and the means to answer it byte by byte."""

    def __init__(self, seen: Seen, writer: asyncio.StreamWriter) -> None:
        self.seen, self._writer = seen, writer
        self.closes = False

    async def send(self, data: bytes) -> None:
        """Bytes as they are, in a packet of their own as far as the system lets them."""
        self._writer.write(data)
        await self._writer.drain()

    async def head(self, status: int, headers: dict[str, str]) -> None:
        """Status line and headers."""
        lines = [f"HTTP/1.1 {status} Fake", *(f"{name}: {value}" for name, value in headers.items())]
        await self.send("\r\n".join([*lines, "", ""]).encode("latin-1"))

    async def whole(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        """A complete answer."""
        await self.head(status, {"content-type": "application/json", "content-length": str(len(body)), **(headers or {})})
        await self.send(body)

    async def opens_stream(self) -> None:
        """The head of a stream of events."""
        await self.head(200, {"content-type": "text/event-stream", "transfer-encoding": "chunked"})

    async def piece(self, data: bytes) -> None:
        """One chunk of a chunked body."""
        await self.send(b"%x\r\n%b\r\n" % (len(data), data))

    async def ends_stream(self) -> None:
        """The last chunk."""
        await self.send(b"0\r\n\r\n")

    def close(self) -> None:
        """Drops the connection once the behaviour has returned."""
        self.closes = True


Behaviour = Callable[[Exchange], Awaitable[None]]


# Behaviours.


def answer(
    text: str = "Hello there, friend.",
    *,
    usage: dict[str, Any] | None = USAGE,
    finish_reason: str = "stop",
    wait: float = 0.0,
    gap: float = 0.0,
    newline: str = "\n",
    comments: bool = False,
    packet: int | None = None,
    done: bool = True,
    tool_calls: list[dict[str, Any]] | None = None,
) -> Behaviour:
    """Answers what is asked: whole or streamed, chat, completion or embeddings.

    Args:
        usage: None leaves it out.
        wait: seconds before the answer begins; `gap` between its pieces.
        newline: of the events.
        comments: a keep-alive comment before every event.
        packet: bytes that each packet of a stream has, whatever events it cuts; None gives each event one of its own.
        done: whether `[DONE]` comes at the end.
    """

    async def behave(exchange: Exchange) -> None:
        await asyncio.sleep(wait)
        if exchange.seen.path.endswith("/embeddings"):
            await exchange.whole(200, _embeddings(exchange.seen, usage))
            return
        if not exchange.seen.streams:
            await exchange.whole(200, whole_answer(exchange.seen, text, usage=usage, finish_reason=finish_reason, tool_calls=tool_calls))
            return
        await exchange.opens_stream()
        events = stream_events(exchange.seen, text, usage=usage, finish_reason=finish_reason, tool_calls=tool_calls)
        written = [_written(event, newline, comments) for event in (*events, *(["[DONE]"] if done else []))]
        if packet is not None:
            joined = b"".join(written)
            written = [joined[start : start + packet] for start in range(0, len(joined), packet)]
        for piece in written:
            await exchange.piece(piece)
            await asyncio.sleep(gap)
        await exchange.ends_stream()

    return behave


def refuse(status: int, message: str = "The fake refuses.", *, headers: dict[str, str] | None = None, wait: float = 0.0) -> Behaviour:
    """An error in OpenAI's shape."""

    async def behave(exchange: Exchange) -> None:
        await asyncio.sleep(wait)
        body = {"error": {"message": message, "type": "fake_error", "param": None, "code": None}}
        await exchange.whole(status, json.dumps(body).encode(), headers)

    return behave


def plain(status: int, body: bytes, *, headers: dict[str, str] | None = None) -> Behaviour:
    """Any status and any bytes."""

    async def behave(exchange: Exchange) -> None:
        await exchange.whole(status, body, headers)

    return behave


def redirect(to: str, status: int = 307) -> Behaviour:
    """Sends the client elsewhere."""
    return plain(status, b"", headers={"location": to})


def hang() -> Behaviour:
    """Never answers."""

    async def behave(exchange: Exchange) -> None:
        await asyncio.sleep(3600)

    return behave


def drop() -> Behaviour:
    """Closes the connection without a word."""

    async def behave(exchange: Exchange) -> None:
        exchange.close()

    return behave


def cut(text: str = "Hello there, friend.", *, events: int = 2, usage: dict[str, Any] | None = None) -> Behaviour:
    """Closes the connection in the middle: of a whole answer's body, or after so many events of a stream."""

    async def behave(exchange: Exchange) -> None:
        exchange.close()
        if not exchange.seen.streams:
            body = whole_answer(exchange.seen, text, usage=USAGE)
            await exchange.head(200, {"content-type": "application/json", "content-length": str(len(body))})
            await exchange.send(body[: len(body) // 2])
            return
        await exchange.opens_stream()
        for event in stream_events(exchange.seen, text, usage=usage)[:events]:
            await exchange.piece(_written(event))

    return behave


def half(text: str = "Hello there, friend.", *, events: int = 2, tail: bytes = b"") -> Behaviour:
    """A stream that ends in good order as HTTP goes, but in the middle of its answer; `tail` is the beginning of one more event."""

    async def behave(exchange: Exchange) -> None:
        await exchange.opens_stream()
        for event in stream_events(exchange.seen, text)[:events]:
            await exchange.piece(_written(event))
        if tail:
            await exchange.piece(tail)
        await exchange.ends_stream()

    return behave


def garbage(*, after: int = 0, data: bytes = b'data: {"choices": [}{\xff\n\n') -> Behaviour:
    """What no JSON is: as the whole answer, or after so many good events of a stream."""

    async def behave(exchange: Exchange) -> None:
        if not exchange.seen.streams:
            await exchange.whole(200, data)
            return
        await exchange.opens_stream()
        for event in stream_events(exchange.seen, "Hello there, friend.")[:after]:
            await exchange.piece(_written(event))
        await exchange.piece(data)
        await exchange.ends_stream()

    return behave


def error_event(*, after: int = 1, message: str = "The fake's engine stopped.") -> Behaviour:
    """A stream that tells of an error after so many events."""

    async def behave(exchange: Exchange) -> None:
        await exchange.opens_stream()
        for event in stream_events(exchange.seen, "Hello there, friend.")[:after]:
            await exchange.piece(_written(event))
        await exchange.piece(_written({"error": {"message": message, "type": "server_error"}}))
        await exchange.ends_stream()

    return behave


def endless(*, gap: float = 0.005, words: int | None = None) -> Behaviour:
    """A stream that goes on for ever; after `words`, where given, it says nothing more and stays open."""

    async def behave(exchange: Exchange) -> None:
        await exchange.opens_stream()
        said = 0
        while words is None or said < words:
            await exchange.piece(_written(_chunk(exchange.seen, [_part({"content": f"word{said} "})])))
            said += 1
            await asyncio.sleep(gap)
        await asyncio.sleep(3600)

    return behave


def no_event_end(*, size: int = 2**20) -> Behaviour:
    """A stream whose one event has no end."""

    async def behave(exchange: Exchange) -> None:
        await exchange.opens_stream()
        await exchange.piece(b"data: ")
        while True:
            await exchange.piece(b"x" * size)

    return behave


def huge(size: int) -> Behaviour:
    """A whole answer of so many bytes."""

    async def behave(exchange: Exchange) -> None:
        await exchange.head(200, {"content-type": "application/json", "content-length": str(size)})
        for start in range(0, size, 2**20):
            await exchange.send(b" " * min(2**20, size - start))

    return behave


def after_seconds(seconds: float, behaviour: Behaviour) -> Behaviour:
    """Another behaviour, later."""

    async def behave(exchange: Exchange) -> None:
        await asyncio.sleep(seconds)
        await behaviour(exchange)

    return behave


def when(event: threading.Event, behaviour: Behaviour) -> Behaviour:
    """Another behaviour, once a test sets the event."""

    async def behave(exchange: Exchange) -> None:
        while not event.is_set():
            await asyncio.sleep(0.002)
        await behaviour(exchange)

    return behave


# What is answered.


def whole_answer(
    seen: Seen,
    text: str,
    *,
    usage: dict[str, Any] | None = USAGE,
    finish_reason: str = "stop",
    tool_calls: list[dict[str, Any]] | None = None,
) -> bytes:
    """A whole chat answer or completion."""
    chat = not seen.path.endswith("/completions") or seen.path.endswith("/chat/completions")
    message: dict[str, Any] = {"role": "assistant", "content": None if tool_calls else text}
    if tool_calls:
        message["tool_calls"] = tool_calls
    choice = {"message": message} if chat else {"text": text}
    body = {
        "id": "chatcmpl-fake",
        "object": "chat.completion" if chat else "text_completion",
        "created": 1700000000,
        "model": seen.body.get("model", ""),
        "choices": [{"index": 0, **choice, "logprobs": None, "finish_reason": finish_reason}],
        **({} if usage is None else {"usage": usage}),
    }
    return json.dumps(body).encode()


def stream_events(
    seen: Seen,
    text: str,
    *,
    usage: dict[str, Any] | None = USAGE,
    finish_reason: str = "stop",
    tool_calls: list[dict[str, Any]] | None = None,
) -> list[dict[str, Any]]:
    """The chunks of a streamed answer: a role, one for each word, the end, the usage where it is asked for."""
    if seen.path.endswith("/completions") and not seen.path.endswith("/chat/completions"):
        chunks = [_chunk(seen, [{"index": 0, "text": word, "finish_reason": None}]) for word in _words(text)]
        chunks.append(_chunk(seen, [{"index": 0, "text": "", "finish_reason": finish_reason}]))
    else:
        chunks = [_chunk(seen, [_part({"role": "assistant", "content": ""})])]
        if tool_calls:
            calls = [{"index": number, **call} for number, call in enumerate(tool_calls)]
            chunks.append(_chunk(seen, [_part({"tool_calls": calls})]))
        else:
            chunks += [_chunk(seen, [_part({"content": word})]) for word in _words(text)]
        chunks.append(_chunk(seen, [_part({}, finish_reason)]))
    if usage is not None and (seen.body.get("stream_options") or {}).get("include_usage"):
        chunks.append({**_chunk(seen, []), "usage": usage})
    return chunks


def _words(text: str) -> list[str]:
    *front, last = text.split(" ")
    return [*(f"{word} " for word in front), last]


def _part(delta: dict[str, Any], finish_reason: str | None = None) -> dict[str, Any]:
    return {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}


def _chunk(seen: Seen, choices: list[dict[str, Any]]) -> dict[str, Any]:
    kind = "chat.completion.chunk" if "/chat/" in seen.path else "text_completion"
    return {"id": "chatcmpl-fake", "object": kind, "created": 1700000000, "model": seen.body.get("model", ""), "choices": choices}


def _embeddings(seen: Seen, usage: dict[str, Any] | None) -> bytes:
    given = seen.body["input"]
    texts = given if isinstance(given, list) else [given]
    data = [{"object": "embedding", "index": number, "embedding": [0.25, 0.5, float(number)]} for number, _ in enumerate(texts)]
    body: dict[str, Any] = {"object": "list", "data": data, "model": seen.body["model"]}
    if usage is not None:
        body["usage"] = {"prompt_tokens": usage["prompt_tokens"], "total_tokens": usage["prompt_tokens"]}
    return json.dumps(body).encode()


def _written(event: dict[str, Any] | str, newline: str = "\n", comments: bool = False) -> bytes:
    data = event if isinstance(event, str) else json.dumps(event)
    comment = f": keep-alive{newline}{newline}" if comments else ""
    return f"{comment}data: {data}{newline}{newline}".encode()


# The server.


@dataclass(kw_only=True, eq=False)
class FakeUpstream:
    """The server.

    Attributes:
        url: what `models.NAME.url` takes, with `/v1`.
        seen: all requests so far, in their order.
        chooses: where given, says from a request what to do with it, whatever the script says.
    """

    url: str = ""
    seen: list[Seen] = field(default_factory=list)
    chooses: Callable[[Seen], Behaviour | None] | None = None
    _behaviours: list[Behaviour] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _connections: int = 0
    _writers: set[asyncio.StreamWriter] = field(default_factory=set)

    def script(self, *behaviours: Behaviour) -> None:
        """What is done with the next requests, one each; the last one stays."""
        assert behaviours, "a script has at least one behaviour"
        with self._lock:
            self._behaviours = list(behaviours)

    def wait_for(self, requests: int) -> None:
        """Returns once so many requests have come."""
        self._eventually(lambda: len(self.seen) >= requests, f"{requests} requests")

    def wait_for_disconnect(self, number: int = 0) -> None:
        """Returns once a request's client has left before its answer was complete."""
        self._eventually(lambda: len(self.seen) > number and self.seen[number].disconnected, "a disconnect")

    @property
    def under_way(self) -> int:
        """Requests that are not answered yet."""
        return sum(not seen.ended for seen in self.seen)

    def _eventually(self, true: Callable[[], bool], what: str) -> None:
        end = time.monotonic() + PATIENCE
        while not true():
            assert time.monotonic() < end, f"{what} never came to the fake upstream"
            time.sleep(0.002)

    def _next(self, seen: Seen) -> Behaviour:
        with self._lock:
            self.seen.append(seen)
            chosen = self.chooses(seen) if self.chooses is not None else None
            if chosen is not None:
                return chosen
            return self._behaviours.pop(0) if len(self._behaviours) > 1 else self._behaviours[0]

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections += 1
        number, rest = self._connections, b""
        self._writers.add(writer)
        try:
            while (seen := await _read(reader, rest, number)) is not None:
                exchange = Exchange(seen, writer)
                left = asyncio.ensure_future(reader.read(2**16))
                behaving = asyncio.ensure_future(self._next(seen)(exchange))
                await asyncio.wait({left, behaving}, return_when=asyncio.FIRST_COMPLETED)
                if not behaving.done() and not (rest := left.result()):
                    seen.disconnected = True
                    behaving.cancel()
                with contextlib.suppress(asyncio.CancelledError, ConnectionError):
                    await behaving
                seen.ended = True
                if seen.disconnected or exchange.closes:
                    left.cancel()
                    return
                rest = await left
                if not rest:
                    return
        except (ConnectionError, asyncio.IncompleteReadError):
            if self.seen:
                self.seen[-1].ended = True
        finally:
            self._writers.discard(writer)
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()


async def _read(reader: asyncio.StreamReader, rest: bytes, connection: int) -> Seen | None:
    """The next request of a connection; None at its end."""
    while b"\r\n\r\n" not in rest:
        more = await reader.read(2**16)
        if not more:
            return None
        rest += more
    head, _, body = rest.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    method, path, _ = first.split(" ", 2)
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    size = int(headers.get("content-length", "0"))
    body += await reader.readexactly(size - len(body)) if size > len(body) else b""
    try:
        decoded = json.loads(body)
    except ValueError:
        decoded = None
    return Seen(method=method, path=path, headers=headers, raw=body, body=decoded, at=time.monotonic(), connection=connection)


@contextlib.contextmanager
def upstream(*behaviours: Behaviour, chooses: Callable[[Seen], Behaviour | None] | None = None) -> Iterator[FakeUpstream]:
    """A fake upstream that listens on a free port until the block ends."""
    fake = FakeUpstream(chooses=chooses)
    fake.script(*(behaviours or (answer(),)))
    listens, stop = threading.Event(), asyncio.Event()
    loops: list[asyncio.AbstractEventLoop] = []

    async def main() -> None:
        server = await asyncio.start_server(fake._connection, "127.0.0.1", 0)
        fake.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        loops.append(asyncio.get_running_loop())
        listens.set()
        await stop.wait()
        server.close()
        for writer in list(fake._writers):
            writer.close()

    thread = threading.Thread(target=lambda: asyncio.run(main()), name="fake-upstream", daemon=True)
    thread.start()
    try:
        assert listens.wait(PATIENCE)
        yield fake
    finally:
        loops[0].call_soon_threadsafe(stop.set)
        thread.join(PATIENCE)
        assert not thread.is_alive()


def refused_url() -> str:
    """The URL of a port on which nobody listens."""
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}/v1"
