"""From a checked request to its answer, whole or streamed; the endpoints differ only in the shapes that they write."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from starlette.requests import Request
from starlette.responses import Response

from foreword.engine import Request as EngineRequest
from foreword.gateway.bridge import Pieces
from foreword.gateway.errors import SERVER, Refusal
from foreword.gateway.naming import Named
from foreword.gateway.service import Service
from foreword.gateway.streaming import EventStream
from foreword.gateway.wire import PromptDetails, UsageOut
from foreword.types import Delta, FinishReason, TokenLogprob, Usage

DEFAULT_LENGTH = 1024
"""Tokens at most of an answer where a request does not say; fewer where the window leaves fewer behind its prompt."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """What every piece of an answer repeats."""

    id: str
    created: int
    model: str


@dataclass(slots=True, kw_only=True)
class Part:
    """One of a request's answers, as it grows."""

    text: list[str] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)
    finish_reason: FinishReason | None = None
    usage: Usage | None = None

    def add(self, delta: Delta) -> None:
        """Takes in one piece."""
        self.text.append(delta.text)
        self.logprobs.extend(delta.logprobs)
        self.finish_reason = delta.finish_reason or self.finish_reason
        self.usage = delta.usage or self.usage


class Shape(Protocol):
    """How one endpoint writes answers."""

    @property
    def id_start(self) -> str:
        """What its answers' ids start with."""
        ...

    def whole(self, head: Head, parts: Sequence[Part], usage: UsageOut) -> bytes:
        """A complete answer as JSON."""
        ...

    def opening(self, head: Head, index: int) -> bytes:
        """The first chunk of an answer, before any piece of it; empty where there is none."""
        ...

    def chunks(self, head: Head, index: int, delta: Delta) -> list[bytes]:
        """The chunks of one piece, which come in order for each index."""
        ...

    def usage_chunk(self, head: Head, usage: UsageOut) -> bytes:
        """The chunk that tells the usage after all others."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A request, checked and understood.

    Attributes:
        requests: makes what the engine is asked, one for each answer, given the most tokens of each; answers to one prompt stand together.
        per_prompt: answers to each prompt.
        most_tokens: tokens at most of each answer; None where the client leaves it open.
        headers: what the answer's head says besides.
        taken_off: the prefix stands for messages that the client sent, and its positions are tokens of the prompt.
    """

    named: Named
    shape: Shape
    requests: Callable[[int], Sequence[EngineRequest]]
    per_prompt: int
    most_tokens: int | None
    stream: bool
    include_usage: bool
    headers: Mapping[str, str] = field(default_factory=dict)
    taken_off: bool = False


async def answer(request: Request, service: Service, plan: Plan) -> Response:
    """Has the engine answer.

    Raises:
        ForewordError: the engine does not take the request on.
        Refusal: the server stopped, or the engine failed, before the answer was complete.
        ClientGone: the client left before it.
    """
    began = time.perf_counter()
    most_tokens = DEFAULT_LENGTH if plan.most_tokens is None else plan.most_tokens
    pieces = await service.bridge.open(plan.requests(most_tokens), request.receive, streamed=plan.stream, shorten=plan.most_tokens is None)
    head = Head(id=f"{plan.shape.id_start}-{secrets.token_hex(12)}", created=int(time.time()), model=plan.named.model)
    parts = [Part() for _ in pieces.delivers]
    if plan.stream:
        events = _Events(plan=plan, head=head, pieces=pieces, parts=parts, service=service, began=began)
        return EventStream(events, headers=plan.headers)
    try:
        while some := await pieces.next():
            for index, delta in some:
                parts[index].add(delta)
    finally:
        pieces.close()
    for part in parts:
        check_complete(part.finish_reason)
    usage = _account(service, plan, parts, pieces, began)
    return Response(plan.shape.whole(head, parts, usage), headers=dict(plan.headers), media_type="application/json")


def check_complete(reason: FinishReason | None) -> None:
    """Raises `Refusal` for an answer that the server cut short, or at which the engine failed."""
    if reason == "cancelled":
        raise Refusal(503, "The server stopped before this answer was complete. Send the request again.", kind=SERVER, code="unavailable")
    if reason == "error":
        raise Refusal(500, "The engine failed at this answer. The server's log says more.", kind=SERVER, code="internal_error")


class _Events:
    """The chunks of a streamed answer, ready to be sent."""

    def __init__(self, *, plan: Plan, head: Head, pieces: Pieces, parts: Sequence[Part], service: Service, began: float) -> None:
        self._plan, self._head, self._pieces, self._parts = plan, head, pieces, parts
        self._service, self._began = service, began

    def opening(self) -> list[bytes]:
        chunks = (self._plan.shape.opening(self._head, index) for index in range(len(self._parts)))
        return [chunk for chunk in chunks if chunk]

    async def next(self) -> list[bytes]:
        chunks: list[bytes] = []
        for index, delta in await self._pieces.next():
            self._parts[index].add(delta)
            check_complete(delta.finish_reason)
            chunks.extend(self._plan.shape.chunks(self._head, index, delta))
        return chunks

    def done(self) -> bool:
        return all(part.finish_reason is not None for part in self._parts)

    def ending(self) -> list[bytes]:
        usage = _account(self._service, self._plan, self._parts, self._pieces, self._began)
        return [self._plan.shape.usage_chunk(self._head, usage)] if self._plan.include_usage else []

    def close(self) -> None:
        self._pieces.close()


def _account(service: Service, plan: Plan, parts: Sequence[Part], pieces: Pieces, began: float) -> UsageOut:
    """What the request took; a prompt counts once, however many answers it has."""
    usages = [part.usage or Usage(prompt_tokens=0, completion_tokens=0) for part in parts]
    per_prompt = usages[:: plan.per_prompt]
    positions = sum(usage.prefix_positions for usage in per_prompt)
    prompt_tokens = sum(usage.prompt_tokens for usage in per_prompt) + (positions if plan.taken_off else 0)
    details = PromptDetails(cached_tokens=positions) if plan.taken_off else PromptDetails(prefix_positions=positions)
    completion_tokens = sum(usage.completion_tokens for usage in usages)
    first = None if pieces.first_at is None else pieces.first_at - began
    service.metrics.answered(
        label=plan.named.label, prompt_tokens=prompt_tokens, completion_tokens=completion_tokens, first_token_seconds=first
    )
    return UsageOut(
        prompt_tokens=prompt_tokens,
        completion_tokens=completion_tokens,
        total_tokens=prompt_tokens + completion_tokens,
        prompt_tokens_details=details,
    )
