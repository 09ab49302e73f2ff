"""Calls without a socket: places, deadlines, priorities, and that every call ends up on the passage exactly once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from foreword.cost.rates import Consumed
from foreword.gateway.calls import Calls, Streamed
from foreword.gateway.passage import Call, Event, Passage, Reply, TargetError
from foreword.gateway.path_settings import PathSettings, build_settings
from foreword.gateway.path_wire import REQUEST
from foreword.gateway.tenants import EVERYBODY

CONSUMED = Consumed(input_tokens=3, output_tokens=2)


@dataclass(eq=False)
class Scripted:
    """A model that does what a test says, and remembers what it was asked."""

    does: Callable[[Call], Awaitable[None]]
    name: str = "big"
    calls: list[Call] = field(default_factory=list)
    closed: int = 0

    async def complete(self, call: Call) -> Reply:
        self.calls.append(call)
        await self.does(call)
        return Reply(model=call.model, body=b"{}", text="yes", finish_reason="stop", consumed=CONSUMED)

    async def stream(self, call: Call) -> AsyncIterator[Event]:
        self.calls.append(call)
        try:
            await self.does(call)
            for word in ("yes ", "and ", "no"):
                yield Event(data=b"data", text=word)
            yield Event(data=b"data", finish_reason="stop", consumed=CONSUMED)
        finally:
            self.closed += 1


async def at_once(call: Call) -> None:
    """No wait at all."""


async def never(call: Call) -> None:
    await asyncio.sleep(3600)


def settings(**fields: Any) -> PathSettings:
    return build_settings({"models": {"big": {"url": "http://localhost/v1", "model": "gpt", **fields}}}, source="the test's settings")


def passage(*, seconds: float = 30.0, stream: bool = False, priority: int = 0, name: str = "p") -> Passage:
    body = {"model": "big", "stream": stream, "messages": [{"role": "user", "content": "x" * 16}], "user": name}
    request = REQUEST.decode(msgspec.json.encode(body))
    return Passage(
        id=name,
        at=datetime.now(UTC),
        began=time.perf_counter(),
        tenant=EVERYBODY,
        user=name,
        asked=request,
        request=request,
        headers={},
        task=settings().task("default"),
        deadline=asyncio.get_running_loop().time() + seconds,
        priority=priority,
    )


def statuses(of: Passage) -> list[tuple[str, str]]:
    return [(attempt.why, attempt.status) for attempt in of.attempts]


def test_an_answer_is_one_attempt() -> None:
    async def main() -> None:
        target, one = Scripted(at_once), passage(seconds=7.0)
        answer = await Calls({"big": target}, settings(seconds=5.0)).ask(one, "big:support", "first", stands_by=False)
        assert isinstance(answer, Reply)
        assert (answer.model, one.attempts[0].model) == ("big:support", "big:support")
        assert one.attempts[0].consumed is CONSUMED
        assert statuses(one) == [("first", "answered")]
        assert target.calls[0].seconds == 5.0

    asyncio.run(main())


def test_a_call_has_no_more_time_than_is_left() -> None:
    async def main() -> None:
        target = Scripted(at_once)
        await Calls({"big": target}, settings()).ask(passage(seconds=2.0), "big", "first", stands_by=False)
        assert 0 < target.calls[0].seconds <= 2.0
        late = passage(seconds=0.0)
        with pytest.raises(TargetError, match="deadline has passed"):
            await Calls({"big": target}, settings()).ask(late, "big", "first", stands_by=False)
        assert len(target.calls) == 1
        assert late.attempts[0].consumed is None

    asyncio.run(main())


def test_a_wait_for_a_place_ends_with_the_deadline_and_says_nothing_of_the_model() -> None:
    async def main() -> None:
        target = Scripted(never)
        calls = Calls({"big": target}, settings(at_once=1, breaker_failures=1))
        holds = asyncio.ensure_future(calls.ask(first := passage(name="first"), "big", "first", stands_by=False))
        await asyncio.sleep(0)
        waits = passage(seconds=0.05, name="second")
        with pytest.raises(TargetError, match="no place") as caught:
            await calls.ask(waits, "big", "first", stands_by=False)
        assert caught.value.status == "timeout"
        assert statuses(waits) == [("first", "timeout")]
        assert waits.attempts[0].consumed is None
        assert len(target.calls) == 1
        holds.cancel()
        await asyncio.gather(holds, return_exceptions=True)
        assert statuses(first) == [("first", "cancelled")]
        # Neither the wait nor the call that was given up opened the circuit, and the place is free again.
        target.does = at_once
        assert isinstance(await calls.ask(passage(), "big", "first", stands_by=False), Reply)

    asyncio.run(main())


def test_higher_priorities_are_asked_for_first() -> None:
    async def main() -> list[str]:
        release = asyncio.Event()

        async def waits(call: Call) -> None:
            await release.wait()

        target = Scripted(waits)
        calls = Calls({"big": target}, settings(at_once=1))
        asked = []
        for name, priority in (("running", 0), ("batch", -10), ("plain", 0), ("urgent", 3)):
            asked.append(asyncio.ensure_future(calls.ask(passage(name=name, priority=priority), "big", "first", stands_by=False)))
            await asyncio.sleep(0)
        release.set()
        await asyncio.gather(*asked)
        return [call.request_id for call in target.calls]

    assert asyncio.run(main()) == ["running", "urgent", "plain", "batch"]


def test_a_stream_keeps_its_place_until_it_ends() -> None:
    async def main() -> None:
        target = Scripted(at_once)
        calls = Calls({"big": target}, settings(at_once=1))
        one = passage(stream=True)
        answer = await calls.ask(one, "big", "first", stands_by=False)
        assert isinstance(answer, Streamed)
        with pytest.raises(TargetError, match="no place"):
            await calls.ask(passage(seconds=0.02), "big", "first", stands_by=False)
        assert [event.text async for event in answer] == ["yes ", "and ", "no", ""]
        assert one.reply is not None
        assert (one.reply.text, one.reply.finish_reason, one.reply.consumed) == ("yes and no", "stop", CONSUMED)
        assert isinstance(await calls.ask(passage(), "big", "first", stands_by=False), Reply)

    asyncio.run(main())


@pytest.mark.parametrize("read", [0, 1, 2, 3])
def test_a_stream_that_is_given_up_is_paid_for_what_came(read: int) -> None:
    async def main() -> None:
        target, one = Scripted(at_once), passage(stream=True)
        answer = await Calls({"big": target}, settings()).ask(one, "big", "first", stands_by=False)
        assert isinstance(answer, Streamed)
        for _ in range(read):
            await anext(answer)
        await answer.aclose()
        await answer.aclose()
        assert target.closed == 1
        assert statuses(one) == [("first", "cancelled")]
        assert one.reply is None
        consumed = one.attempts[0].consumed
        assert consumed is not None
        assert consumed.estimated
        # The first event had come before anybody asked for it.
        assert (consumed.input_tokens, consumed.output_tokens) == (4 + 4, max(read, 1))

    asyncio.run(main())


def test_a_place_comes_back_from_an_error_that_nobody_foresaw() -> None:
    async def main() -> None:
        async def bad(call: Call) -> None:
            raise ZeroDivisionError

        target = Scripted(bad)
        calls = Calls({"big": target}, settings(at_once=1))
        for stream in (False, True):
            with pytest.raises(ZeroDivisionError):
                await calls.ask(passage(stream=stream), "big", "first", stands_by=False)
        target.does = at_once
        assert isinstance(await calls.ask(passage(), "big", "first", stands_by=False), Reply)

    asyncio.run(main())


@pytest.mark.parametrize("stream", [False, True])
def test_of_two_answers_in_the_same_moment_both_are_recorded_and_one_is_given(stream: bool) -> None:
    async def main() -> None:
        release = asyncio.Event()

        async def waits(call: Call) -> None:
            await release.wait()

        target, one = Scripted(waits), passage(stream=stream)
        calls = Calls({"big": target}, settings(hedge_seconds=0.01))
        asked = asyncio.ensure_future(calls.ask(one, "big", "first", stands_by=False))
        while len(target.calls) < 2:
            await asyncio.sleep(0.001)
        release.set()
        answer = await asked
        if isinstance(answer, Streamed):
            assert [event.text async for event in answer] == ["yes ", "and ", "no", ""]
            assert target.closed == 2
            assert sorted(status for _, status in statuses(one)) == ["answered", "cancelled"]
        assert sorted(why for why, _ in statuses(one)) == ["first", "hedge"]
        assert all(attempt.consumed is not None for attempt in one.attempts)

    asyncio.run(main())
