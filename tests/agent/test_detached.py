"""Blocking functions, called from an event loop that does not wait for those that never end."""

from __future__ import annotations

import asyncio
import contextvars
import threading

import pytest

from foreword.agent.detached import MOST_LEFT, Detached
from foreword.errors import ToolError


def test_a_result_comes_back() -> None:
    assert asyncio.run(Detached("tool").call(lambda left, right: left * right, 6, right=7)) == 42


def test_an_exception_comes_back() -> None:
    def fail() -> None:
        raise KeyError("tea")

    with pytest.raises(KeyError, match="tea"):
        asyncio.run(Detached("tool").call(fail))


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), StopIteration(), GeneratorExit(), TimeoutError("theirs")])
def test_what_would_end_more_than_the_call_comes_as_the_tools_error(error: BaseException) -> None:
    def fail() -> None:
        raise error

    with pytest.raises(ToolError, match=type(error).__name__):
        asyncio.run(Detached("tool").call(fail))


def test_the_callers_context_is_seen() -> None:
    seen: contextvars.ContextVar[str] = contextvars.ContextVar("seen")

    async def run() -> str:
        seen.set("here")
        return await Detached("tool").call(seen.get)

    assert asyncio.run(run()) == "here"


def test_one_that_hangs_is_left_behind_and_too_many_are_refused() -> None:
    release = threading.Event()
    threads = Detached("tool")

    async def leave() -> None:
        under_way = asyncio.ensure_future(threads.call(release.wait))
        await asyncio.sleep(0.001)
        under_way.cancel()
        with pytest.raises(asyncio.CancelledError):
            await under_way

    async def run() -> None:
        for _ in range(MOST_LEFT):
            await leave()
        with pytest.raises(ToolError, match=f"{MOST_LEFT} earlier calls of `tool` have not ended yet"):
            await threads.call(lambda: 1)
        release.set()
        for _ in range(1_000):
            try:
                assert await threads.call(lambda: 1) == 1
                return
            except ToolError:
                await asyncio.sleep(0.005)
        raise AssertionError("the tool never came back")

    # The loop ends although threads are still waiting in the middle of it.
    asyncio.run(run())


def test_an_event_loop_ends_while_a_thread_hangs() -> None:
    release = threading.Event()

    async def run() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await Detached("tool").call(release.wait)

    asyncio.run(run())
    assert not release.is_set()
    release.set()
