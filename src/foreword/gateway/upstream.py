"""Calls to another server's OpenAI-compatible endpoint, one at a time; what to do when one fails is the business of `infer`.

Where it lies is in the configuration and nowhere else; redirects are not followed. Streams are passed on event by event, as they come.
"""

from __future__ import annotations

import asyncio
import email.utils
import logging
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import aiohttp
import msgspec
from msgspec import UNSET

from foreword.cost.rates import Consumed
from foreword.gateway.errors import without_paths
from foreword.gateway.passage import AttemptStatus, Call, Event, Reply, TargetError
from foreword.gateway.path_settings import ModelSettings
from foreword.gateway.path_wire import CHUNK, REPLY, ChunkBody, PathRequest, UsageIn
from foreword.gateway.wire import StreamOptions

MOST_BYTES = 64 * 2**20
"""Of a whole answer, and of one event of a stream."""
MOST_EVENTS = 1_000_000
CONNECT_SECONDS = 10.0
AT_FAULT = frozenset({400, 404, 413, 422})
"""Statuses that say that the request itself is wrong: sent again it would be wrong again."""
_WITH_USAGE = StreamOptions(include_usage=True)
_END = b"\n\n"

logger = logging.getLogger(__name__)


class _Detail(msgspec.Struct, frozen=True):
    message: str = ""


class _Error(msgspec.Struct, frozen=True):
    error: _Detail = _Detail()


_ERROR = msgspec.json.Decoder(_Error)


class Upstream:
    """One model on another server. Meets `Target`. For one event loop."""

    def __init__(self, name: str, settings: ModelSettings, *, key: str | None) -> None:
        assert settings.url is not None, "an upstream has a URL"
        self.name = name
        self._settings = settings
        self._url = f"{settings.url.rstrip('/')}/chat/completions"
        self._headers = {"content-type": "application/json", "accept-encoding": "identity"}
        if key is not None:
            self._headers["authorization"] = f"Bearer {key}"
        self._session: aiohttp.ClientSession | None = None

    async def complete(self, call: Call) -> Reply:
        """A whole answer; see `Target`."""
        try:
            async with asyncio.timeout(call.seconds), self._post(call, stream=False) as response:
                raw = await _limited(response)
                self._check(response, raw)
        except TimeoutError:
            raise TargetError(f"`{self.name}` took longer than {call.seconds:.0f} seconds.", status="timeout") from None
        except aiohttp.ClientError as error:
            raise self._unreachable(error) from None
        try:
            body = REPLY.decode(raw)
            choice = body.choices[0]
        except (msgspec.MsgspecError, IndexError, UnicodeDecodeError, RecursionError):
            raise TargetError(f"`{self.name}` answered with something that is no answer.", status="broken", http_status=200) from None
        return Reply(
            model=call.model,
            body=raw,
            text=choice.message.content if isinstance(choice.message.content, str) else "",
            finish_reason=choice.finish_reason,
            consumed=consumed_of(body.usage),
            tool_calls=bool(choice.message.tool_calls),
        )

    async def stream(self, call: Call) -> AsyncIterator[Event]:
        """An answer piece by piece; see `Target`."""
        begun, ends_at = False, time.monotonic() + call.seconds
        try:
            async with self._post(call, stream=True) as response:
                if response.status != 200:
                    async with asyncio.timeout(call.seconds):
                        self._check(response, await _limited(response))
                async for event in self._events(response, call, ends_at):
                    begun = True
                    yield event
        except TimeoutError:
            raise TargetError(f"`{self.name}` kept its next piece back for too long.", status="timeout", begun=begun) from None
        except aiohttp.ClientError as error:
            raise self._unreachable(error, begun=begun) from None

    async def close(self) -> None:
        """Closes the connections."""
        if self._session is not None:
            await self._session.close()

    def _post(self, call: Call, *, stream: bool) -> Any:
        if self._session is None:
            # Made here, as a session belongs to the loop that it is made in.
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=60, ttl_dns_cache=300),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS),
                auto_decompress=False,
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        body = msgspec.json.encode(outgoing(call.request, call.model, self._settings, stream=stream))
        return self._session.post(self._url, data=body, headers=self._headers, allow_redirects=False)

    async def _events(self, response: aiohttp.ClientResponse, call: Call, ends_at: float) -> AsyncIterator[Event]:
        """Whole events as they come. Ends at `[DONE]`; a stream that stops before has broken off."""
        rest, first, count = b"", True, 0
        finished = False
        while True:
            # The first piece has a time of its own; the others share what is left of the whole answer's.
            wait = min(ends_at - time.monotonic(), self._settings.first_token_seconds if first else call.seconds)
            async with asyncio.timeout(max(0.0, wait)):
                piece = await response.content.readany()
            if not piece:
                break
            first = False
            *whole, rest = (rest + piece.replace(b"\r\n", b"\n")).split(_END)
            if len(rest) > MOST_BYTES:
                raise TargetError(f"`{self.name}` sends an event without an end.", status="broken", begun=count > 0)
            for event in whole:
                count += 1
                if event.strip() == b"data: [DONE]":
                    return
                read = self._read(event, count, wants_usage=wants_usage(call.request))
                if read is not None:
                    finished = finished or read.finish_reason is not None
                    yield read
            if count > MOST_EVENTS:
                raise TargetError(f"`{self.name}` does not end its answer.", status="broken", begun=True)
        if not finished:
            raise TargetError(f"`{self.name}` broke off in the middle of its answer.", status="broken", begun=count > 0)

    def _read(self, event: bytes, count: int, *, wants_usage: bool) -> Event | None:
        data = b"\n".join(line[5:].lstrip() for line in event.split(b"\n") if line.startswith(b"data:"))
        if not data:
            return None
        try:
            chunk = CHUNK.decode(data)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            raise TargetError(f"`{self.name}` sent a chunk that cannot be read.", status="broken", begun=count > 1) from None
        if chunk.error is not None:
            raise TargetError(f"`{self.name}` failed in the middle of its answer.", status="broken", begun=count > 1)
        return event_of(event + _END, chunk, wants_usage=wants_usage)

    def _check(self, response: aiohttp.ClientResponse, raw: bytes) -> None:
        """Raises `TargetError` where the status is not 200."""
        status = response.status
        if status == 200:
            return
        if status in AT_FAULT:
            words = _words(raw) or "The model does not take this request."
            raise TargetError(words, status="refused", http_status=status, refusal=without_paths(words).encode())
        if status in (401, 403):
            logger.error("model %s refuses its key (HTTP %d): look at `key_env`", self.name, status)
        kind: AttemptStatus = "timeout" if status in (408, 504) else "unavailable"
        after = _retry_after(response.headers.get("retry-after"))
        raise TargetError(f"`{self.name}` cannot answer now (HTTP {status}).", status=kind, http_status=status, retry_after=after)

    def _unreachable(self, error: aiohttp.ClientError, *, begun: bool = False) -> TargetError:
        logger.info("model %s cannot be reached: %s", self.name, type(error).__name__)
        what = "broke off in the middle of its answer" if begun else "cannot be reached"
        return TargetError(f"`{self.name}` {what}.", status="broken" if begun else "unavailable", begun=begun)


def outgoing(request: PathRequest, model: str, settings: ModelSettings, *, stream: bool) -> PathRequest:
    """The request as it is sent: under the model's own name, without what is only the path's business."""
    own, colon, prefix = model.partition(":")
    del own
    return msgspec.structs.replace(
        request,
        model=f"{settings.model}{colon}{prefix}",
        stream=True if stream else UNSET,
        stream_options=_WITH_USAGE if stream else UNSET,
        user=UNSET,
        metadata=UNSET,
        store=UNSET,
        service_tier=UNSET,
        prompt=UNSET,
    )


def consumed_of(usage: UsageIn | None) -> Consumed | None:
    """What a model says that it took, in the ledger's terms; a prefix's positions are read from a cache."""
    if usage is None:
        return None
    inward, outward = usage.prompt_tokens_details, usage.completion_tokens_details
    positions = (inward.prefix_positions or 0) if inward else 0
    return Consumed(
        input_tokens=usage.prompt_tokens + positions,
        cache_read_tokens=((inward.cached_tokens or 0) if inward else 0) + positions,
        cache_write_tokens=(inward.cache_write_tokens or 0) if inward else 0,
        output_tokens=usage.completion_tokens,
        reasoning_tokens=(outward.reasoning_tokens or 0) if outward else 0,
    )


def wants_usage(request: PathRequest) -> bool:
    """Whether the client asked for the chunk that has the usage; the path always does."""
    return isinstance(request.stream_options, StreamOptions) and bool(request.stream_options.include_usage)


def event_of(data: bytes, chunk: ChunkBody, *, wants_usage: bool) -> Event:
    """What the path reads in an event. Args: data: the event's bytes; a chunk that has only a usage nobody asked for is not passed on."""
    texts = [part.delta.content for part in chunk.choices if part.delta.content]
    return Event(
        data=data if chunk.choices or wants_usage else b"",
        text="".join(texts),
        finish_reason=next((part.finish_reason for part in chunk.choices if part.finish_reason), None),
        consumed=consumed_of(chunk.usage),
        tool_calls=any(part.delta.tool_calls for part in chunk.choices),
    )


async def _limited(response: aiohttp.ClientResponse) -> bytes:
    pieces, total = [], 0
    async for piece in response.content.iter_any():
        total += len(piece)
        if total > MOST_BYTES:
            raise TargetError("The model's answer is larger than any answer should be.", status="broken", http_status=response.status)
        pieces.append(piece)
    return b"".join(pieces)


def _words(raw: bytes) -> str:
    try:
        return _ERROR.decode(raw).error.message[:500]
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return ""


def _retry_after(given: str | None) -> float | None:
    """Seconds, from either of the header's forms."""
    if given is None:
        return None
    if given.strip().isdecimal():
        return float(given.strip()[:9])
    try:
        at = email.utils.parsedate_to_datetime(given)
    except ValueError:
        return None
    at = at if at.tzinfo is not None else at.replace(tzinfo=UTC)
    return max(0.0, (at - datetime.now(UTC)).total_seconds())
