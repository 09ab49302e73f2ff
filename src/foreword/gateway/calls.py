"""Calls of the models, with all that a call may need: a place, a circuit that is closed, a second try, a second call beside the first.

`Calls.ask` gives the first whole answer, or the first answer that has begun to stream, and puts every call on the passage as an attempt,
those that were cancelled too. From the moment that a stream has begun nothing is tried again: how it ends is told to the client as it is.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from typing import cast

import msgspec
from msgspec import UNSET

from foreword.cost.rates import Consumed
from foreword.gateway import retrying
from foreword.gateway.assembling.prompt import without_prompt
from foreword.gateway.breaker import Breaker, Way
from foreword.gateway.estimate import at_least, estimated
from foreword.gateway.passage import Attempt, AttemptStatus, Call, Event, Passage, Reply, Target, TargetError
from foreword.gateway.path_settings import ModelSettings, PathSettings
from foreword.gateway.path_wire import PathRequest
from foreword.gateway.retrying import RetryBudget
from foreword.gateway.slots import Slots

_UNSENT: frozenset[AttemptStatus] = frozenset({"refused", "unavailable", "open-circuit"})
"""Of calls that took nothing: no model worked on them."""

logger = logging.getLogger(__name__)


class Line:
    """What is kept of one model from call to call."""

    def __init__(self, name: str, target: Target, settings: ModelSettings) -> None:
        self.name, self.target, self.settings = name, target, settings
        self.slots = Slots(settings.at_once)
        self.breaker = Breaker(name, failures=settings.breaker_failures, seconds=settings.breaker_seconds)
        self.budget = RetryBudget(settings.retry_budget)


class Streamed:
    """An answer that has begun to stream: an asynchronous iterator of its events, which `aclose` gives up.

    Attributes:
        began: `time.perf_counter()` when the first event came.
    """

    def __init__(self, attempt: _Attempt, events: AsyncGenerator[Event], first: Event) -> None:
        self._attempt, self._events = attempt, events
        self.began = time.perf_counter()
        self._first: Event | None = first
        self._texts: list[str] = []
        self._characters = self._chunks = 0
        self._finish_reason: str | None = None
        self._consumed: Consumed | None = None
        self._tool_calls = self._ended = False

    @property
    def model(self) -> str:
        """Which model answers."""
        return self._attempt.model

    def __aiter__(self) -> Streamed:
        return self

    async def __anext__(self) -> Event:
        if self._first is not None:
            event, self._first = self._first, None
        else:
            try:
                event = await anext(self._events)
            except StopAsyncIteration:
                self._end("answered")
                raise
            except TargetError as error:
                self._end(error.status, error)
                raise
            except BaseException:
                await self.aclose()
                raise
        self._note(event)
        return event

    async def aclose(self) -> None:
        """Gives up what has not come."""
        await self._events.aclose()
        self._end("cancelled")

    def _note(self, event: Event) -> None:
        if event.text:
            self._texts.append(event.text)
            self._characters += len(event.text)
        if event.text or event.tool_calls:
            self._chunks += 1
        self._tool_calls = self._tool_calls or event.tool_calls
        self._finish_reason = event.finish_reason or self._finish_reason
        self._consumed = event.consumed or self._consumed

    def _end(self, status: AttemptStatus, error: TargetError | None = None) -> None:
        if self._ended:
            return
        self._ended = True
        if self._first is not None:
            # It came, though nobody took it.
            self._note(self._first)
        consumed = self._consumed
        if consumed is None:
            consumed = self._attempt.estimated(characters=self._characters, chunks=self._chunks)
        elif status != "answered":
            consumed = at_least(consumed, characters=self._characters, chunks=self._chunks)
        self._attempt.end(status, error=error, consumed=consumed)
        if status == "answered":
            self._attempt.passage.reply = Reply(
                model=self.model,
                body=b"",
                text="".join(self._texts),
                finish_reason=self._finish_reason,
                consumed=consumed,
                tool_calls=self._tool_calls,
            )


Answer = Reply | Streamed


class Calls:
    """The models of one server."""

    def __init__(self, targets: Mapping[str, Target], settings: PathSettings) -> None:
        self._lines = {name: Line(name, target, settings.model(name)) for name, target in targets.items()}
        self._draw = random.Random()

    async def ask(self, passage: Passage, model: str, why: str, *, stands_by: bool) -> Answer:
        """The answer of a model, at the first try or a later one.

        Args:
            model: with its prefix, where it has one.
            why: of the first try; see `Attempt`.
            stands_by: whether there is another model to ask, so that a long wait for this one is not worth it.

        Raises:
            TargetError: that of the last try.
        """
        line = self._line(model)
        line.budget.called()
        tried = 0
        while True:
            tried += 1
            try:
                return await self._once(passage, line, model, why)
            except TargetError as error:
                pause = retrying.wait(error, tried=tried, left=left_of(passage), stands_by=stands_by, draw=self._draw)
                if pause is None or tried > line.settings.retries:
                    raise
                if not line.budget.take():
                    logger.info("model %s is not asked again: its retry budget is spent", line.name)
                    raise
            await asyncio.sleep(pause)
            passage.retries += 1
            why = "retry"

    async def _once(self, passage: Passage, line: Line, model: str, why: str) -> Answer:
        way = line.breaker.way()
        if way == "open":
            passage.attempts.append(Attempt(model=model, why=why, status="open-circuit", seconds=0.0))
            words = f"`{line.name}` failed too often just now, and is left alone for a while."
            raise TargetError(words, status="open-circuit", retry_after=line.breaker.opens_in)
        attempt = _Attempt(passage, line, model, why, way)
        if line.settings.hedge_seconds is None:
            return await attempt.answer()
        return await self._raced(passage, line, attempt, line.settings.hedge_seconds)

    async def _raced(self, passage: Passage, line: Line, attempt: _Attempt, seconds: float) -> Answer:
        """The first answer of two calls, the second of which is sent where the first one takes longer than `seconds`.

        After Dean and Barroso, *The Tail at Scale* (2013), "hedged requests".
        """
        racing = [asyncio.ensure_future(attempt.answer())]
        winner: Answer | None = None
        try:
            await asyncio.wait(racing, timeout=seconds)
            if not racing[0].done() and (second := self._hedge(passage, line, attempt.model)) is not None:
                racing.append(asyncio.ensure_future(second.answer()))
            winner = await _first_answer(racing)
            return winner
        finally:
            for task in racing:
                task.cancel()
            for late in await asyncio.gather(*racing, return_exceptions=True):
                if isinstance(late, Streamed) and late is not winner:
                    await late.aclose()

    def _hedge(self, passage: Passage, line: Line, model: str) -> _Attempt | None:
        """A call of the secondary, or else of the same model, where it costs nobody a place or a retry."""
        for other in (line.settings.secondary, model):
            if other is None:
                continue
            its = self._line(other)
            if its.breaker.is_closed and its.slots.are_free and line.budget.take():
                return _Attempt(passage, its, other, "hedge", "closed")
        return None

    def _line(self, model: str) -> Line:
        return self._lines[model.partition(":")[0]]


class _Attempt:
    """One call, from its place in the line to its record."""

    def __init__(self, passage: Passage, line: Line, model: str, why: str, way: Way) -> None:
        self.passage, self.model = passage, model
        self._line, self._why = line, why
        self._way: Way = way
        self._began = time.perf_counter()
        self._call: Call | None = None
        self._placed = False

    async def answer(self) -> Answer:
        """Raises `TargetError`."""
        try:
            await self._take_place()
            self._call = call = _call(self.passage, self.model, self._line.settings)
            self._began = time.perf_counter()
            if self.passage.buffered:
                reply = await self._line.target.complete(call)
                self.end("answered", consumed=reply.consumed)
                return reply
            events = self._line.target.stream(call)
            first = await _first_of(events, self.model)
            # It answers; how long its answer goes on keeps nobody else waiting.
            self._line.breaker.succeeded()
            self._way = "closed"
            return Streamed(self, cast("AsyncGenerator[Event]", events), first)
        except TargetError as error:
            self.end(error.status, error=error, consumed=self._taken(error))
            raise
        except BaseException:
            self.end("cancelled", consumed=self.estimated())
            raise

    def estimated(self, *, characters: int = 0, chunks: int = 0) -> Consumed | None:
        """What it took, where nobody says; None where it was never sent."""
        if self._call is None:
            return None
        seconds = time.perf_counter() - self._began
        return estimated(self._call.request, characters=characters, chunks=chunks, seconds=seconds)

    def end(self, status: AttemptStatus, *, error: TargetError | None = None, consumed: Consumed | None = None) -> None:
        """Records it, gives its place back, and tells the circuit how it went."""
        self.passage.attempts.append(
            Attempt(
                model=self.model,
                why=self._why,
                status=status,
                seconds=time.perf_counter() - self._began,
                http_status=None if error is None else error.http_status,
                consumed=consumed,
            )
        )
        breaker = self._line.breaker
        if status in ("answered", "refused"):
            breaker.succeeded()
        elif self._call is None or status == "cancelled":
            breaker.gave_up(self._way)
        else:
            breaker.failed(self._way)
        if self._placed:
            self._line.slots.leave()

    async def _take_place(self) -> None:
        slots = self._line.slots
        if not slots.take():
            try:
                await slots.wait(priority=self.passage.priority, seconds=max(0.0, left_of(self.passage)))
            except TimeoutError:
                words = f"`{self._line.name}` had no place for the request before its deadline."
                raise TargetError(words, status="timeout") from None
        self._placed = True

    def _taken(self, error: TargetError) -> Consumed | None:
        """A model that took the request on is paid for what it read, even where no answer of it came."""
        return None if error.status in _UNSENT or error.http_status not in (None, 200) else self.estimated()


def left_of(passage: Passage) -> float:
    """Seconds until the request's deadline."""
    return passage.deadline - asyncio.get_running_loop().time()


async def _first_answer(racing: Sequence[asyncio.Future[Answer]]) -> Answer:
    """The first answer. Raises `TargetError`: one that says that the request is wrong at once, otherwise the first call's once all have."""
    waiting = set(racing)
    while waiting:
        done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            error = task.exception()
            if error is None:
                return task.result()
            if not isinstance(error, TargetError) or error.refusal is not None:
                raise error
    error = racing[0].exception()
    assert error is not None, "every call has failed"
    raise error


async def _first_of(events: AsyncIterator[Event], model: str) -> Event:
    """Until the first piece is there, another model can still be asked. Raises `TargetError`."""
    try:
        return await anext(events)
    except StopAsyncIteration:
        raise TargetError(f"`{model}` ended its answer before it began.", status="broken", http_status=200) from None


def _call(passage: Passage, model: str, settings: ModelSettings) -> Call:
    left = left_of(passage)
    if left <= 0:
        raise TargetError("The request's deadline has passed.", status="timeout")
    request = _limited(without_prompt(passage, model), passage, settings)
    return Call(request=request, model=model, tenant=passage.tenant, request_id=passage.id, seconds=min(left, settings.seconds))


def _limited(request: PathRequest, passage: Passage, settings: ModelSettings) -> PathRequest:
    """The request with the lowest of the limits of its answer: the client's, its task type's, and the model's."""
    asked = request.output_limit()
    limit = min((limit for limit in (asked, passage.task.output_limit, settings.output_limit) if limit is not None), default=None)
    if limit is None or limit == asked:
        return request
    if asked is not None:
        passage.told["foreword-output-limit"] = str(limit)
    # OpenAI's own newer models take no `max_tokens`; many other servers take nothing else.
    newer = isinstance(request.max_completion_tokens, int) or settings.provider == "openai"
    most, none = ("max_completion_tokens", "max_tokens") if newer else ("max_tokens", "max_completion_tokens")
    return msgspec.structs.replace(request, **{most: limit, none: UNSET})
