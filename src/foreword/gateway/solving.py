"""From a chat request for a strategy to its answer, whole or streamed.

A stream says at once whose turn it is, keeps the connection alive while the strategy works, and then holds the answer in one piece: there
is nothing to show before it is chosen.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import msgspec
from msgspec import UNSET, UnsetType
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive

from foreword.errors import ForewordError
from foreword.gateway.answering import DEFAULT_LENGTH, Head, check_complete
from foreword.gateway.conversation import conversation_of
from foreword.gateway.errors import ClientGone, Refusal, not_found, refusal_of, without_paths
from foreword.gateway.gating import gated, said
from foreword.gateway.sampling import constraint_of, most_tokens, sampling_of, seeds
from foreword.gateway.service import Service
from foreword.gateway.stands_for import Match
from foreword.gateway.strategies import Strategies
from foreword.gateway.strategy_model import FindStandIns, Refuse, StrategyModel
from foreword.gateway.streaming import KEEP_ALIVE, EventStream
from foreword.gateway.tenants import Tenant
from foreword.gateway.wire import (
    ChatAnswer,
    ChatChoice,
    ChatChunk,
    ChatRequest,
    ChunkChoice,
    OutDelta,
    OutMessage,
    PromptDetails,
    StrategyOut,
    UsageOut,
)
from foreword.prompting.strategy import Solved, Strategy, solve
from foreword.types import Message, Sampling

STRATEGY, CALLS, STATUS, REASON = "foreword-strategy", "foreword-calls", "foreword-status", "foreword-reason"
MOST_HEADER = 200
"""Characters."""


async def answer_by_strategy(request: Request, service: Service, body: ChatRequest, tenant: Tenant) -> Response:
    """Has a strategy answer.

    Raises:
        Refusal, ForewordError: it cannot be asked for so, or ended without an answer.
        ClientGone: the client left before it.
    """
    strategies = service.strategies
    if strategies is None:
        raise not_found("This server offers no strategies. `GET /v1/models` lists what there is.")
    _check(body)
    strategy, model_name = await strategies.read(body.model)
    named = await service.names.named(model_name, tenant)
    conversation = await conversation_of(service, body, tenant, with_examples=False)
    judged, limit, offer = await gated(service.gate, named, (said(conversation.messages),)), most_tokens(body), strategies.offer
    model = StrategyModel(
        service.bridge,
        judged.named[0],
        room=strategies.room,
        shorten=limit is None,
        # Where the gate keeps a prefix off, no other stands in for it.
        stand_ins=None if named.references else _stand_ins(service, tenant),
    )
    solving = solve(
        strategy,
        conversation.messages,
        model,
        resources=replace(offer.resources, shots=conversation.shots),
        sampling=_sampling(body, limit),
        budget=offer.budget,
    )
    work = _Work(strategies.begin(solving, key=strategy.key, label=named.label, model=model), request.receive)
    form = _Form(
        head=Head(id=f"chatcmpl-{secrets.token_hex(12)}", created=int(time.time()), model=body.model),
        strategy=strategy,
        model=model,
        with_usage=body.stream_options is not None and bool(body.stream_options.include_usage),
    )
    headers = {**conversation.headers, **judged.headers, STRATEGY: _header(str(strategy))}
    return await (_streamed if body.stream else _whole)(work, form, strategies, headers)


async def _whole(work: _Work, form: _Form, strategies: Strategies, headers: Mapping[str, str]) -> Response:
    try:
        await work.wait()
        solved = form.checked(work.result())
    finally:
        work.close()
    return Response(form.whole(solved), headers={**headers, **_told(solved)}, media_type="application/json")


async def _streamed(work: _Work, form: _Form, strategies: Strategies, headers: Mapping[str, str]) -> Response:
    patience = strategies.offer.keep_alive_seconds
    try:
        # What is wrong from the start has a status of its own.
        if await work.wait(form.model.taken_on, seconds=patience):
            form.checked(work.result())
    except BaseException:
        work.close()
        raise
    return EventStream(_Events(work, form, patience), headers=headers)


def _check(body: ChatRequest) -> None:
    """Raises `Refusal` for what has no meaning where a strategy asks, and for constraints that would hold for each of its calls."""
    if (body.n or 1) > 1:
        raise _meaningless("n", "A strategy gives one answer; `self-consistency` draws several and votes.")
    if body.logprobs:
        raise _meaningless("logprobs", "A strategy's answer comes from several calls and has no log-probabilities.")
    if body.ignore_eos:
        raise _meaningless("ignore_eos", "A strategy's calls end where the model ends them.")
    if constraint_of(body) is not None:
        given = ("response_format", "guided_regex", "guided_choice", "guided_json")
        name = next(name for name in given if getattr(body, name) is not None)
        raise _meaningless(name, "A strategy says itself what its calls are to look like.")


def _meaningless(param: str, reason: str) -> Refusal:
    return Refusal(400, f"{reason} Leave `{param}` out.", code="unsupported_parameter", param=param)


def _sampling(body: ChatRequest, limit: int | None) -> Sampling:
    """What holds for calls where the strategy does not say otherwise: without a temperature they are greedy, as strategies are measured."""
    drawn = sampling_of(body, max_new_tokens=DEFAULT_LENGTH if limit is None else limit, logprobs=None, seed=seeds(body, 1)[0])
    return replace(drawn, temperature=0.0) if body.temperature is None else drawn


def _stand_ins(service: Service, tenant: Tenant) -> tuple[FindStandIns, Refuse] | None:
    stand_ins = service.stand_ins
    if stand_ins is None:
        return None

    async def find(conversation: Sequence[Message], sampling: Sampling) -> Sequence[Match]:
        return await stand_ins.matches(conversation, tenant, repetition_penalty=sampling.repetition_penalty)

    return find, stand_ins.refuse


class _Work:
    """A strategy at work for a client, who is watched."""

    def __init__(self, task: asyncio.Task[Solved], receive: Receive) -> None:
        self._task = task
        self._watcher = asyncio.create_task(_left(receive))

    async def wait(self, *others: asyncio.Future[None], seconds: float | None = None) -> bool:
        """Waits until the strategy has ended, one of the others is done, or for so long; whether it has ended. Raises `ClientGone`."""
        await asyncio.wait({self._task, self._watcher, *others}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if self._watcher.done():
            self._watcher.result()
            raise ClientGone
        return self._task.done()

    def result(self) -> Solved:
        """What it came to. Raises `Refusal`, also for what the strategy was refused for."""
        check_complete("cancelled" if self._task.cancelled() else None)
        try:
            return self._task.result()
        except ForewordError as error:
            raise refusal_of(error) from None

    def close(self) -> None:
        """Stops watching, and gives up what is not finished."""
        self._watcher.cancel()
        self._task.cancel()


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


@dataclass(frozen=True, slots=True, kw_only=True)
class _Form:
    """How the answer is written."""

    head: Head
    strategy: Strategy
    model: StrategyModel
    with_usage: bool

    def checked(self, solved: Solved) -> Solved:
        """Raises `Refusal` for a strategy that ended without any answer."""
        if solved.status == "answered" or solved.text:
            return solved
        error = self.model.error
        if error is not None and str(error) == solved.reason:
            # A plain request would have ended with the same.
            raise refusal_of(error)
        # Not a status that clients send again by themselves: it would cost as much again, and most likely end like this.
        code = "budget_spent" if solved.status == "budget" else "strategy_failed"
        told = {STRATEGY: _header(str(self.strategy)), **_told(solved)}
        raise Refusal(422, f"The strategy ended without an answer. {without_paths(solved.reason)}", code=code, headers=told)

    def whole(self, solved: Solved) -> bytes:
        """A `chat.completion`."""
        choice = ChatChoice(index=0, message=OutMessage(content=solved.text), logprobs=None, finish_reason=self._finish(solved))
        head = self.head
        return msgspec.json.encode(
            ChatAnswer(
                id=head.id, created=head.created, model=head.model, choices=[choice], usage=self.usage(solved), strategy=self._out(solved)
            )
        )

    def opening(self) -> bytes:
        """The chunk that says whose turn it is."""
        return self._chunk(ChunkChoice(index=0, delta=OutDelta(role="assistant", content="")))

    def chunks(self, solved: Solved) -> list[bytes]:
        """The text, where there is some, and the end."""
        text = [self._chunk(ChunkChoice(index=0, delta=OutDelta(content=solved.text)))] if solved.text else []
        end = ChunkChoice(index=0, delta=OutDelta(), finish_reason=self._finish(solved))
        return [*text, self._chunk(end, strategy=self._out(solved))]

    def usage_chunk(self, solved: Solved) -> bytes:
        """A chunk without choices."""
        head = self.head
        return msgspec.json.encode(ChatChunk(id=head.id, created=head.created, model=head.model, choices=[], usage=self.usage(solved)))

    def usage(self, solved: Solved) -> UsageOut:
        """What all calls took together."""
        usage = solved.usage
        return UsageOut(
            prompt_tokens=usage.prompt_tokens,
            completion_tokens=usage.completion_tokens,
            total_tokens=usage.prompt_tokens + usage.completion_tokens,
            prompt_tokens_details=PromptDetails(cached_tokens=self.model.cached_tokens, prefix_positions=usage.prefix_positions),
        )

    def _chunk(self, choice: ChunkChoice, *, strategy: StrategyOut | UnsetType = UNSET) -> bytes:
        head, no_usage = self.head, None if self.with_usage else UNSET
        return msgspec.json.encode(
            ChatChunk(id=head.id, created=head.created, model=head.model, choices=[choice], usage=no_usage, strategy=strategy)
        )

    def _finish(self, solved: Solved) -> Literal["stop", "length"]:
        return "length" if solved.status == "budget" or self.model.was_cut_short(solved.text) else "stop"

    def _out(self, solved: Solved) -> StrategyOut:
        return StrategyOut(
            name=str(self.strategy),
            status=solved.status,
            calls=solved.calls,
            final=solved.final,
            candidates=list(solved.candidates),
            reason=without_paths(solved.reason),
            note=solved.note,
        )


class _Events:
    """The chunks of a streamed answer."""

    def __init__(self, work: _Work, form: _Form, patience: float) -> None:
        self._work, self._form, self._patience = work, form, patience
        self._solved: Solved | None = None

    def opening(self) -> list[bytes]:
        return [self._form.opening()]

    async def next(self) -> list[bytes]:
        if not await self._work.wait(seconds=self._patience):
            return [KEEP_ALIVE]
        self._solved = self._form.checked(self._work.result())
        return self._form.chunks(self._solved)

    def done(self) -> bool:
        return self._solved is not None

    def ending(self) -> list[bytes]:
        assert self._solved is not None
        return [self._form.usage_chunk(self._solved)] if self._form.with_usage else []

    def close(self) -> None:
        self._work.close()


def _told(solved: Solved) -> dict[str, str]:
    told = {CALLS: str(solved.calls), STATUS: solved.status}
    return told | ({REASON: _header(without_paths(solved.reason))} if solved.reason else {})


def _header(text: str) -> str:
    """What of a text can stand in a header: one line of ASCII, of bounded length."""
    line = "".join(character if " " <= character <= "~" else "?" for character in " ".join(text.split()))
    return line[:MOST_HEADER]
