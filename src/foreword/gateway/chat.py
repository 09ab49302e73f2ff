"""`POST /v1/chat/completions`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import msgspec
from msgspec import UNSET
from starlette.requests import Request
from starlette.responses import Response

from foreword.engine import Request as EngineRequest
from foreword.errors import PrefixError
from foreword.gateway.answering import Head, Part, Plan, answer
from foreword.gateway.conversation import conversation_of
from foreword.gateway.errors import Refusal
from foreword.gateway.gating import gated, said
from foreword.gateway.logprobs import chat_logprobs
from foreword.gateway.naming import Named
from foreword.gateway.reading import read
from foreword.gateway.sampling import most_tokens, sampling_of, seeds
from foreword.gateway.service import service_of
from foreword.gateway.solving import answer_by_strategy
from foreword.gateway.strategies import is_strategy
from foreword.gateway.wire import (
    ChatAnswer,
    ChatChoice,
    ChatChunk,
    ChatRequest,
    ChunkChoice,
    OutDelta,
    OutMessage,
    UsageOut,
)
from foreword.types import Delta, Message

_DECODER = msgspec.json.Decoder(ChatRequest)


async def chat_completions(request: Request) -> Response:
    """Answers a conversation."""
    service = service_of(request)
    tenant = service.tenant(request)
    body = await read(request, _DECODER, most_bytes=service.body_bytes)
    _check(body)
    if is_strategy(body.model):
        return await answer_by_strategy(request, service, body, tenant)
    named = await service.names.named(body.model, tenant)
    conversation = await conversation_of(service, body, tenant)
    judged = await gated(service.gate, named, (said(conversation.messages),))
    plan = replace(_plan(body, judged.named[0], conversation.messages), headers={**conversation.headers, **judged.headers})
    if service.stand_ins is None or named.references:
        return await answer(request, service, plan)
    for match in await service.stand_ins.matches(conversation.messages, tenant, repetition_penalty=body.repetition_penalty):
        headers = {**conversation.headers, **match.headers}
        shorter = replace(_plan(body, match.named(body.model), match.rest), headers=headers, taken_off=True)
        try:
            return await answer(request, service, shorter)
        except PrefixError as error:
            # For another model, or gone since it was found. Nothing was sent yet.
            service.stand_ins.refuse(match, error)
    return await answer(request, service, plan)


def _plan(body: ChatRequest, named: Named, conversation: tuple[Message, ...]) -> Plan:
    count, logprobs = body.n or 1, (body.top_logprobs or 0) if body.logprobs else None
    drawn = seeds(body, count)

    def requests(most: int) -> list[EngineRequest]:
        samplings = (sampling_of(body, max_new_tokens=most, logprobs=logprobs, seed=seed) for seed in drawn)
        return [EngineRequest(conversation=conversation, prefix=named.files, sampling=sampling) for sampling in samplings]

    include_usage = body.stream_options is not None and bool(body.stream_options.include_usage)
    return Plan(
        named=named,
        shape=ChatShape(with_logprobs=logprobs is not None, with_usage=include_usage),
        requests=requests,
        per_prompt=count,
        most_tokens=most_tokens(body),
        stream=bool(body.stream),
        include_usage=include_usage,
    )


def _check(body: ChatRequest) -> None:
    if body.tools and body.tool_choice != "none":
        raise Refusal(
            400,
            'This engine calls no tools. Leave `tools` out, or send `"tool_choice": "none"`, and they are ignored.',
            code="unsupported_parameter",
            param="tools",
        )
    if body.tool_choice not in (None, "none", "auto"):
        raise Refusal(400, "This engine calls no tools. Leave `tool_choice` out.", code="unsupported_parameter", param="tool_choice")
    if body.top_logprobs and not body.logprobs:
        raise Refusal(400, '`top_logprobs` needs `"logprobs": true`.', code="invalid_value", param="top_logprobs")


class ChatShape:
    """Chat answers and their chunks."""

    id_start = "chatcmpl"

    def __init__(self, *, with_logprobs: bool, with_usage: bool) -> None:
        self._with_logprobs = with_logprobs
        # With `include_usage`, every chunk has the field, and the last one a value in it.
        self._no_usage = None if with_usage else UNSET

    def whole(self, head: Head, parts: Sequence[Part], usage: UsageOut) -> bytes:
        """A `chat.completion`."""
        choices = [
            ChatChoice(
                index=index,
                message=OutMessage(content="".join(part.text)),
                logprobs=chat_logprobs(part.logprobs) if self._with_logprobs else None,
                finish_reason="length" if part.finish_reason == "length" else "stop",
            )
            for index, part in enumerate(parts)
        ]
        return msgspec.json.encode(ChatAnswer(id=head.id, created=head.created, model=head.model, choices=choices, usage=usage))

    def opening(self, head: Head, index: int) -> bytes:
        """The chunk that says whose turn it is."""
        return self._chunk(head, ChunkChoice(index=index, delta=OutDelta(role="assistant", content="")))

    def chunks(self, head: Head, index: int, delta: Delta) -> list[bytes]:
        """A chunk of text where there is some, and the last one with the reason for the end."""
        chunks = []
        logprobs = chat_logprobs(delta.logprobs) if self._with_logprobs and delta.logprobs else None
        if delta.text or logprobs is not None:
            chunks.append(self._chunk(head, ChunkChoice(index=index, delta=OutDelta(content=delta.text), logprobs=logprobs)))
        if delta.finish_reason is not None:
            reason = "length" if delta.finish_reason == "length" else "stop"
            chunks.append(self._chunk(head, ChunkChoice(index=index, delta=OutDelta(), finish_reason=reason)))
        return chunks

    def usage_chunk(self, head: Head, usage: UsageOut) -> bytes:
        """A chunk without choices."""
        return msgspec.json.encode(ChatChunk(id=head.id, created=head.created, model=head.model, choices=[], usage=usage))

    def _chunk(self, head: Head, choice: ChunkChoice) -> bytes:
        return msgspec.json.encode(ChatChunk(id=head.id, created=head.created, model=head.model, choices=[choice], usage=self._no_usage))
