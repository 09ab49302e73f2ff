"""What of the path's traffic is captured where the configuration has `store.capture`: failures, and of the rest a share by task type."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec

from foreword.gateway.assembling.tools import tool_name
from foreword.gateway.cache.private_data import redacted
from foreword.gateway.passage import Passage, Reply
from foreword.gateway.path_wire import REPLY, PathRequest
from foreword.gateway.stage import Parts
from foreword.store.database import open_database
from foreword.telemetry.capture import Capture, Captured, sampled

MOST_PICTURE = 200
"""Characters that are kept of a part that is no text: an image inside a message says what it is at its beginning."""


def capture_of(parts: Parts) -> Callable[[Passage], Awaitable[None]] | None:
    """What captures a passage that has ended; None where nothing is to be captured. Raises `StoreError`, `ConfigError`."""
    place = parts.settings.store.capture
    if place is None:
        return None
    capture = Capture(open_database(place if "://" in place else Path(place)), redact=redacted)

    async def close() -> None:
        await asyncio.to_thread(capture.close)

    async def take(passage: Passage) -> None:
        failed = passage.status != "answered" or passage.success is False
        if failed or sampled(passage.id, passage.task.capture_share):
            capture.take(_snapshot(passage))

    parts.closing.append(close)
    return take


def _snapshot(passage: Passage) -> Callable[[], Captured]:
    """What makes the capture, of values that do not change any more."""
    request, reply = passage.request, passage.reply
    tokens = _tokens(passage)
    fields: dict[str, Any] = {
        "id": passage.id,
        "at": passage.at,
        "tenant": passage.tenant.name,
        "task": passage.task.name,
        "status": passage.status,
        "success": passage.success,
        "model": passage.model,
        "prompt": passage.prompt,
        "prefix": passage.prefix,
        "cache": passage.cache,
        "sources": passage.sources,
        "left_out": passage.told.get("foreword-assembled", ""),
        "input_tokens": tokens[0],
        "output_tokens": tokens[1],
    }
    return lambda: Captured(**fields, **_said(request, reply))


def _said(request: PathRequest, reply: Reply | None) -> dict[str, Any]:
    return {
        "messages": [_short(message) for message in msgspec.to_builtins(request.messages)],
        "tools": list(request.tools or ()),
        "answer": "" if reply is None else reply.text,
        "called": _called(reply),
    }


def _called(reply: Reply | None) -> list[str]:
    if reply is None or not reply.tool_calls or not reply.body:
        return []
    try:
        choices = REPLY.decode(reply.body).choices
    except msgspec.MsgspecError:
        return []
    calls = [call for choice in choices for call in choice.message.tool_calls or ()]
    return [name for call in calls if (name := tool_name(call)) is not None]


def _short(message: dict[str, Any]) -> dict[str, Any]:
    """The message without what is no text in it, but a beginning."""
    content = message.get("content")
    if not isinstance(content, list):
        return message
    parts = [part if part.get("type") == "text" else {"type": part.get("type"), "is": str(part)[:MOST_PICTURE]} for part in content]
    return {**message, "content": parts}


def _tokens(passage: Passage) -> tuple[int | None, int | None]:
    """As billed, of the calls that answer: not of summaries and judges."""
    counts = [dict(line.consumed) for line in passage.lines if line.stage == "infer" and line.consumed]
    if not counts:
        return None, None
    return (sum(int(count.get("input", 0)) for count in counts), sum(int(count.get("output", 0)) for count in counts))
