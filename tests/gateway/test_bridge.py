"""The way to the engine and back, without HTTP."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from foreword.engine import Request
from foreword.engines.echo import EchoServing, load
from foreword.errors import Overloaded, WindowError
from foreword.gateway.bridge import Bridge
from foreword.gateway.errors import ClientGone
from foreword.types import Message, Sampling

Receive = Callable[[], Awaitable[Any]]


def asked(words: str, **sampling: Any) -> Request:
    return Request(conversation=(Message(role="user", content=words),), sampling=Sampling(**sampling))


async def stays() -> Any:
    """A client that waits for its answer."""
    await asyncio.Event().wait()


async def texts(bridge: Bridge, requests: list[Request], *, streamed: bool) -> list[list[str]]:
    pieces = await bridge.open(requests, stays, streamed=streamed)
    found: list[list[str]] = [[] for _ in requests]
    while some := await pieces.next():
        for index, delta in some:
            found[index].append(delta.text)
    assert pieces.first_at is not None
    pieces.close()
    return found


@pytest.mark.parametrize("streamed", [False, True])
def test_pieces_come_in_order(streamed: bool):
    engine = load("echo-1ms").serve()
    bridge = Bridge(engine)
    found = asyncio.run(texts(bridge, [asked("one two three"), asked("four")], streamed=streamed))
    assert found == [["one", " two", " three"], ["four"]]
    bridge.close()
    engine.close()


def test_all_or_none(wait_until: Any):
    engine = load("echo-5ms", window=200).serve(max_rows=1, queue=1)
    bridge = Bridge(engine)
    long = "w " * 50
    with pytest.raises(WindowError):
        asyncio.run(bridge.open([asked(long), asked("x", max_new_tokens=500)], stays, streamed=True))
    wait_until(lambda: engine.load().running + engine.load().waiting == 0)
    with pytest.raises(Overloaded):
        asyncio.run(bridge.open([asked(long)] * 3, stays, streamed=True))
    wait_until(lambda: engine.load().running + engine.load().waiting == 0)
    assert engine.load().completion_tokens < 50
    bridge.close()
    engine.close()


class Terse(EchoServing):
    """Does not say how many tokens would have fitted."""

    def submit(self, request: Request, deliver: Any) -> Any:
        try:
            return super().submit(request, deliver)
        except WindowError as error:
            raise WindowError(str(error)) from None


@pytest.mark.parametrize(("engine_class", "lengths"), [(EchoServing, [110, 199, 150]), (Terse, [64, 128, 150])])
def test_each_answer_is_made_as_short_as_it_must_be(engine_class: type[EchoServing], lengths: list[int]):
    engine = engine_class(load("echo", window=200), max_rows=8, queue=8, resident_bytes=0, step_seconds=0.0)
    bridge = Bridge(engine)
    long, short = "w " * 90, "w"
    requests = [asked(words, max_new_tokens=most, ignore_end=True) for words, most in ((long, 1024), (short, 1024), (short, 150))]

    async def run() -> list[int]:
        pieces = await bridge.open(requests, stays, streamed=False, shorten=True)
        said = [0] * len(requests)
        while some := await pieces.next():
            for index, delta in some:
                said[index] += len(delta.token_ids)
        pieces.close()
        return said

    assert asyncio.run(run()) == lengths
    with pytest.raises(WindowError, match="200 prompt tokens"):
        asyncio.run(bridge.open([asked("w " * 200, max_new_tokens=1024)], stays, streamed=False, shorten=True))
    with pytest.raises(WindowError, match="1024 new ones"):
        asyncio.run(bridge.open(requests, stays, streamed=False))
    bridge.close()
    engine.close()


def test_a_client_that_leaves(wait_until: Any):
    engine = load("echo-5ms").serve()
    bridge = Bridge(engine)

    async def leaves() -> Any:
        return {"type": "http.disconnect"}

    async def run() -> None:
        pieces = await bridge.open([asked("w " * 1000, max_new_tokens=1000)], leaves, streamed=False)
        with pytest.raises(ClientGone):
            await pieces.next()
        pieces.close()

    asyncio.run(run())
    wait_until(lambda: engine.load().running + engine.load().waiting == 0)
    bridge.close()
    engine.close()


def test_a_task_that_ends_while_its_request_is_taken_on(wait_until: Any):
    """The engine is busy reading a prefix; the request behind it is given up, and does not run on for nobody."""
    engine = load("echo-5ms").serve()
    bridge = Bridge(engine)

    async def run() -> None:
        held, free = asyncio.Event(), asyncio.Event()
        loop = asyncio.get_running_loop()

        def slow() -> None:
            loop.call_soon_threadsafe(held.set)
            asyncio.run_coroutine_threadsafe(free.wait(), loop).result()

        reading = asyncio.create_task(bridge.call(slow))
        await held.wait()
        opening = asyncio.create_task(bridge.open([asked("w " * 1000, max_new_tokens=1000)], stays, streamed=False))
        await asyncio.sleep(0)
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening
        free.set()
        await reading
        await bridge.call(lambda: None)

    asyncio.run(run())
    wait_until(lambda: engine.load().running + engine.load().waiting == 0)
    assert engine.load().completion_tokens < 1000
    bridge.close()
    engine.close()


class Slow(EchoServing):
    """Takes its time to take a request on."""

    entered, leave = threading.Event(), threading.Event()

    def submit(self, request: Request, deliver: Any) -> Any:
        ticket = super().submit(request, deliver)
        self.entered.set()
        assert self.leave.wait(30)
        return ticket


def test_a_task_that_ends_while_its_request_is_being_checked(wait_until: Any):
    engine = Slow(load("echo"), max_rows=1, queue=1, resident_bytes=0, step_seconds=0.005)
    bridge = Bridge(engine)

    async def run() -> None:
        opening = asyncio.create_task(bridge.open([asked("w " * 1000, max_new_tokens=1000)], stays, streamed=False))
        await asyncio.to_thread(engine.entered.wait, 30)
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening
        engine.leave.set()

    asyncio.run(run())
    wait_until(lambda: engine.load().running + engine.load().waiting == 0)
    assert engine.load().completion_tokens < 1000
    bridge.close()
    engine.close()


def test_the_loop_is_never_held_up():
    """While a request is being taken on, which may take long, the loop goes on."""
    engine = load().serve()
    bridge = Bridge(engine)

    async def run() -> int:
        beats = 0
        loop = asyncio.get_running_loop()
        free = asyncio.Event()
        waits = asyncio.create_task(bridge.call(lambda: asyncio.run_coroutine_threadsafe(free.wait(), loop).result()))
        answer = asyncio.create_task(texts(bridge, [asked("one")], streamed=False))
        for _ in range(20):
            await asyncio.sleep(0)
            beats += 1
        assert not answer.done()
        free.set()
        await waits
        assert await answer == [["one"]]
        return beats

    assert asyncio.run(run()) == 20
    bridge.close()
    engine.close()
