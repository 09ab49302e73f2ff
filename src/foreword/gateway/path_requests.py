"""From a request's bytes to a passage: what it says, checked for what contradicts itself."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec
from msgspec import UNSET

from foreword.gateway import ids
from foreword.gateway.errors import Refusal
from foreword.gateway.passage import Passage
from foreword.gateway.path_settings import AUTO
from foreword.gateway.path_wire import REQUEST, PathMessage, PathRequest, TextCall
from foreword.gateway.reading import decode
from foreword.gateway.tenants import Tenant
from foreword.gateway.wire import TextRequest

if TYPE_CHECKING:
    from foreword.gateway.path_settings import PathSettings, TaskSettings

MOST_USER = 128
_TEXT = msgspec.json.Decoder(TextRequest)
_NOTHING = (None, UNSET)


def chat_of(raw: bytes) -> PathRequest:
    """A chat request. Raises `Refusal` (400), which names the field."""
    request = decode(REQUEST, raw)
    _check(request)
    return request


def text_of(raw: bytes, settings: PathSettings) -> TextCall:
    """A request to go on from texts, which only a model in this process does. Raises `Refusal` (400), which names the field."""
    body = decode(_TEXT, raw)
    name = body.model.partition(":")[0]
    if name == AUTO or (name in settings.models and settings.model(name).engine is None):
        words = "Only a model in this process goes on from texts. Name it, or send a conversation to `/v1/chat/completions`."
        raise Refusal(400, words, code="unsupported_model", param="model")
    if body.stream_options is not None and not body.stream:
        raise _contradicts("stream_options", '`stream_options` needs `"stream": true`.')
    texts = (body.prompt,) if isinstance(body.prompt, str) else tuple(text for text in body.prompt if isinstance(text, str))
    return TextCall(
        model=body.model,
        # Each is a turn, so that what they are about to cost is that of all of them.
        messages=tuple(PathMessage(role="user", content=text) for text in texts),
        stream=UNSET if body.stream is None else body.stream,
        stream_options=body.stream_options,
        max_tokens=body.max_tokens,
        n=body.n,
        user=body.user if isinstance(body.user, str) else UNSET,
        texts=body,
    )


def passage_of(
    request: PathRequest,
    *,
    tenant: Tenant,
    task: TaskSettings,
    headers: dict[str, str],
    began: float | None = None,
    start: str = "chatcmpl",
) -> Passage:
    """A passage that is about to begin, in a running loop.

    Args:
        task: the settings that hold until `intake` knows better.
        began: of `time.perf_counter()`; by default now.
        start: of its id.
    """
    return Passage(
        id=f"{start}-{ids.fresh()}",
        at=datetime.now(UTC),
        began=time.perf_counter() if began is None else began,
        tenant=tenant,
        user=request.user[:MOST_USER] if isinstance(request.user, str) else "",
        asked=request,
        request=request,
        headers=headers,
        task=task,
        deadline=asyncio.get_running_loop().time() + task.seconds,
    )


def _check(request: PathRequest) -> None:
    """Raises `Refusal` (400) for what contradicts itself."""
    if not request.messages and request.prompt is UNSET:
        raise _contradicts("messages", "`messages` is empty. Give at least the user's turn.")
    limits = {limit for limit in (request.max_tokens, request.max_completion_tokens) if isinstance(limit, int)}
    if len(limits) > 1:
        raise _contradicts("max_completion_tokens", "`max_tokens` and `max_completion_tokens` differ. Send one of them.")
    if request.stream_options not in _NOTHING and not request.streams:
        raise _contradicts("stream_options", '`stream_options` needs `"stream": true`.')
    if request.top_logprobs not in (*_NOTHING, 0) and request.logprobs is not True:
        raise _contradicts("top_logprobs", '`top_logprobs` needs `"logprobs": true`.')
    if not request.tools and request.tool_choice not in (*_NOTHING, "none", "auto"):
        raise _contradicts("tool_choice", "`tool_choice` needs `tools`. Give the tools, or leave it out.")


def _contradicts(param: str, message: str) -> Refusal:
    return Refusal(400, message, code="invalid_value", param=param)
