"""Calls to another server's OpenAI-compatible endpoint, one at a time; what to do when one fails is the business of `infer`.

Where it lies is in the configuration and nowhere else; redirects are not followed. Streams are passed on event by event, as they come.
"""

from __future__ import annotations

import asyncio
import contextlib
import email.utils
import logging
import re
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import aiohttp
import msgspec
from msgspec import UNSET

from foreword.cost.rates import Consumed
from foreword.gateway.errors import without_paths
from foreword.gateway.estimate import estimated
from foreword.gateway.event_cutter import EventCutter
from foreword.gateway.passage import AttemptStatus, Call, Event, Reply, TargetError
from foreword.gateway.path_settings import ModelSettings
from foreword.gateway.path_wire import CHUNK, REPLY, ChunkBody, PathRequest, ReplyBody, UsageIn
from foreword.gateway.wire import StreamOptions

MOST_BYTES = 64 * 2**20
"""Of a whole answer."""
MOST_EVENT_BYTES = 4 * 2**20
"""Of one event of a stream."""
MOST_EVENTS = 1_000_000
MOST_CHARACTERS = 500
"""Of a model's own words."""
CONNECT_SECONDS, DRAIN_SECONDS = 10.0, 0.05
AT_FAULT = frozenset({400, 404, 413, 422})
"""Statuses that say that the request itself is wrong, where the model says how: sent again it would be wrong again."""
AT_SET_UP = frozenset({300, 301, 302, 303, 304, 307, 308, 400, 401, 402, 403, 404, 405, 407, 410, 413, 415, 422, 501})
"""Statuses that say that this server's settings are wrong."""
_KEEP_ALIVE = Event(data=b": keep-alive\n\n")
_SECRETS = re.compile(
    r"[a-z][a-z0-9+.-]*://[^\s\"'<>]+|(?i:\bbearer\s+\S+)|\b(?:sk|pk|rk|gsk|xai|key|pplx|nvapi|hf|AIza)[-_]?[A-Za-z0-9*_-]{12,}"
)
_NAME = re.compile(r"[A-Za-z0-9_.\[\]-]{1,64}")

logger = logging.getLogger(__name__)


class _OutgoingOptions(StreamOptions, frozen=True, kw_only=True, omit_defaults=True):
    """Without nulls, which not every server takes."""


_WITH_USAGE = _OutgoingOptions(include_usage=True)


class _Detail(msgspec.Struct, frozen=True):
    message: str = ""
    code: Any = None
    param: Any = None


class _Error(msgspec.Struct, frozen=True):
    error: _Detail = _Detail()


_ERROR = msgspec.json.Decoder(_Error)


class Upstream:
    """One model on another server. Meets `Target`. For one event loop."""

    def __init__(self, name: str, settings: ModelSettings, *, key: str | None) -> None:
        assert settings.url is not None, "an upstream has a URL"
        self.name = name
        self._settings, self._key = settings, key
        self._by_time = settings.price is not None and settings.price.needs_seconds
        self._url = f"{settings.url.rstrip('/')}/chat/completions"
        self._headers = {"content-type": "application/json", "accept-encoding": "identity"}
        if key is not None:
            self._headers["authorization"] = f"Bearer {key}"
        self._session: aiohttp.ClientSession | None = None

    async def complete(self, call: Call) -> Reply:
        """A whole answer; see `Target`."""
        began = time.perf_counter()
        try:
            async with asyncio.timeout(call.seconds), self._post(call, stream=False) as response:
                raw = await _limited(response)
        except aiohttp.ClientError as error:
            raise self._unreachable(error) from None
        except TimeoutError:
            raise TargetError(f"`{self.name}` took longer than {call.seconds:.0f} seconds.", status="timeout") from None
        self._check(response, raw)
        try:
            body = REPLY.decode(raw)
            choice = body.choices[0]
        except (msgspec.MsgspecError, IndexError, UnicodeDecodeError, RecursionError):
            raise TargetError(f"`{self.name}` answered with something that is no answer.", status="broken", http_status=200) from None
        text = choice.message.content if isinstance(choice.message.content, str) else ""
        return Reply(
            model=call.model,
            body=raw,
            text=text,
            finish_reason=choice.finish_reason,
            consumed=self._consumed(body.usage, time.perf_counter() - began) or self._estimated(call, body, time.perf_counter() - began),
            tool_calls=bool(choice.message.tool_calls),
        )

    async def stream(self, call: Call) -> AsyncIterator[Event]:
        """An answer piece by piece; see `Target`."""
        loop, began = asyncio.get_running_loop(), time.perf_counter()
        ends_at = loop.time() + call.seconds
        first_by = min(ends_at, loop.time() + self._settings.first_token_seconds)
        begun, response = False, None
        try:
            async with asyncio.timeout_at(first_by):
                response = await self._post(call, stream=True)
                if response.status != 200:
                    self._check(response, await _limited(response))
            async for event in self._events(response, call, first_by, ends_at, began):
                begun = True
                yield event
        except aiohttp.ClientError as error:
            raise self._unreachable(error, begun=begun) from None
        except TimeoutError:
            what = "kept its next piece back for too long" if begun else "did not begin to answer in time"
            raise TargetError(f"`{self.name}` {what}.", status="timeout", begun=begun) from None
        finally:
            if response is not None:
                # At the end of the body this gives the connection back; before it, it hangs up.
                response.release()

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

    async def _events(
        self, response: aiohttp.ClientResponse, call: Call, first_by: float, ends_at: float, began: float
    ) -> AsyncIterator[Event]:
        """Whole events as they come; `first_by` and `ends_at` are of `loop.time()`. Ends at `[DONE]`; what stops before has broken off."""
        cutter, count, finished, by = EventCutter(), 0, False, first_by
        wanted, piece = wants_usage(call.request), b"-"
        while piece:
            async with asyncio.timeout_at(by):
                piece = await response.content.readany()
            for data in cutter.cut(piece):
                if data == b"[DONE]":
                    await _drained(response)
                    return
                if not data:
                    if count:
                        # A comment keeps the connection alive on its way to the client, too.
                        yield _KEEP_ALIVE
                    continue
                count += 1
                read = self._read(data, count, wants_usage=wanted, began=began)
                finished = finished or read.finish_reason is not None
                # The first piece has a time of its own; the others share what is left of the whole answer's.
                by = ends_at
                yield read
            if cutter.held > MOST_EVENT_BYTES or count > MOST_EVENTS:
                raise self._broken("does not end its answer", begun=count > 0)
        if not finished:
            raise self._broken("broke off in the middle of its answer", begun=count > 0)

    def _read(self, data: bytes, count: int, *, wants_usage: bool, began: float) -> Event:
        try:
            chunk = CHUNK.decode(data)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            raise self._broken("sent a chunk that cannot be read", begun=count > 1) from None
        if chunk.error is not None:
            raise self._broken("failed in the middle of its answer", begun=count > 1)
        event = event_of(b"data: %b\n\n" % data, chunk, wants_usage=wants_usage)
        if not self._by_time or event.consumed is None:
            return event
        return replace(event, consumed=replace(event.consumed, machine_seconds=time.perf_counter() - began))

    def _consumed(self, usage: UsageIn | None, seconds: float) -> Consumed | None:
        """What the model says that it took; an own machine is paid by its time."""
        consumed = consumed_of(usage)
        return replace(consumed, machine_seconds=seconds) if self._by_time and consumed is not None else consumed

    def _estimated(self, call: Call, body: ReplyBody, seconds: float) -> Consumed:
        characters = sum(len(choice.message.content) for choice in body.choices if isinstance(choice.message.content, str))
        characters += sum(len(msgspec.json.encode(choice.message.tool_calls)) for choice in body.choices if choice.message.tool_calls)
        return estimated(call.request, characters=characters, seconds=seconds)

    def _check(self, response: aiohttp.ClientResponse, raw: bytes) -> None:
        """Raises `TargetError` where the status is not 200."""
        status = response.status
        if status == 200:
            return
        told = _told(raw)
        if status in AT_FAULT and told.message:
            words = without_secrets(told.message, self._key)
            code, param = _name(told.code), _name(told.param)
            raise TargetError(words, status="refused", http_status=status, refusal=words.encode(), code=code, param=param)
        if status in AT_SET_UP:
            # Whether its key holds, and where it sends to, is between this server and the model.
            logger.error("model %s cannot be asked (HTTP %d): look at its `url`, `model` and `key_env`", self.name, status)
            words = f"`{self.name}` cannot be asked; its settings on this server have to be looked at."
            raise TargetError(words, status="unavailable", http_status=status)
        kind: AttemptStatus = "timeout" if status in (408, 504) else "unavailable"
        after = _retry_after(response.headers.get("retry-after"))
        raise TargetError(f"`{self.name}` cannot answer now (HTTP {status}).", status=kind, http_status=status, retry_after=after)

    def _unreachable(self, error: aiohttp.ClientError, *, begun: bool = False) -> TargetError:
        """A connection that was refused, or broke; the error's own words may hold the URL, and stay here."""
        logger.info("model %s cannot be reached: %s", self.name, type(error).__name__)
        if begun or isinstance(error, aiohttp.ClientPayloadError):
            return self._broken("broke off in the middle of its answer", begun=begun)
        return TargetError(f"`{self.name}` cannot be reached.", status="unavailable")

    def _broken(self, what: str, *, begun: bool) -> TargetError:
        return TargetError(f"`{self.name}` {what}.", status="broken", http_status=200, begun=begun)


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
    """What a model says that it took, in the ledger's terms; a prefix's positions are read from a cache.

    Some servers leave tokens of their cache, or of the model's reasoning (Gemini's endpoint), out of both counts and have them in the total
    alone; they are paid for all the same.
    """
    if usage is None:
        return None
    inward, outward = usage.prompt_tokens_details, usage.completion_tokens_details
    positions = (inward.prefix_positions or 0) if inward else 0
    read = ((inward.cached_tokens or 0) if inward else 0) or usage.cache_read_input_tokens or usage.prompt_cache_hit_tokens
    read = read or usage.cached_tokens or 0
    written = ((inward.cache_write_tokens or 0) if inward else 0) or usage.cache_creation_input_tokens or 0
    asked, answered = usage.prompt_tokens or 0, usage.completion_tokens or 0
    reasoning = (outward.reasoning_tokens or 0) if outward else 0
    left_out = (usage.total_tokens or 0) - asked - answered
    if left_out > 0 and left_out == read + written:
        asked += left_out
    elif left_out > 0:
        answered, reasoning = answered + left_out, max(reasoning, left_out)
    return Consumed(
        input_tokens=asked + positions,
        cache_read_tokens=read + positions,
        cache_write_tokens=written,
        output_tokens=max(answered, reasoning),
        reasoning_tokens=reasoning,
    )


def wants_usage(request: PathRequest) -> bool:
    """Whether the client asked for the chunk that has the usage; the path always does."""
    return isinstance(request.stream_options, StreamOptions) and bool(request.stream_options.include_usage)


def event_of(data: bytes, chunk: ChunkBody, *, wants_usage: bool) -> Event:
    """What the path reads in an event. Args: data: the event's bytes; a chunk that has only a usage nobody asked for is not passed on."""
    texts = [part.delta.content for part in chunk.choices if isinstance(part.delta.content, str)]
    return Event(
        data=data if chunk.choices or wants_usage else b"",
        text="".join(texts),
        finish_reason=next((part.finish_reason for part in chunk.choices if part.finish_reason), None),
        consumed=consumed_of(chunk.usage),
        tool_calls=any(part.delta.tool_calls for part in chunk.choices),
    )


async def _drained(response: aiohttp.ClientResponse) -> None:
    """Reads what comes at once after the end of an answer: only a body that was read to its end leaves a connection to use again."""
    with contextlib.suppress(TimeoutError, aiohttp.ClientError):
        async with asyncio.timeout(DRAIN_SECONDS):
            while await response.content.readany():
                pass


async def _limited(response: aiohttp.ClientResponse) -> bytes:
    pieces, total = [], 0
    async for piece in response.content.iter_any():
        total += len(piece)
        if total > MOST_BYTES:
            raise TargetError("The model's answer is larger than any answer should be.", status="broken", http_status=response.status)
        pieces.append(piece)
    return b"".join(pieces)


def without_secrets(text: str, key: str | None) -> str:
    """A model's words as a client may see them: without addresses, paths, and whatever looks like a key."""
    if key:
        text = text.replace(key, "(key)")
    return without_paths(_SECRETS.sub("(left out)", text))[:MOST_CHARACTERS]


def _told(raw: bytes) -> _Detail:
    try:
        return _ERROR.decode(raw).error
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return _Detail()


def _name(given: Any) -> str | None:
    """A code or a field's name, where it is no more than that."""
    return given if isinstance(given, str) and _NAME.fullmatch(given) else None


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
