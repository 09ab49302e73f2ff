"""Many calls of one request over the bridge, on the echo engine."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest

from foreword.engines.echo import EchoServing, load
from foreword.errors import ServingError, WindowError
from foreword.gateway.bridge import Bridge
from foreword.gateway.naming import Named
from foreword.gateway.strategy_model import SHARE, StrategyModel
from foreword.types import Message, Sampling

HELLO = (Message(role="user", content="hello there friend"),)
LONG = (Message(role="user", content="w " * 1000),)
MOST = Sampling(max_new_tokens=2000)


@pytest.fixture
def serving() -> Iterator[Callable[..., EchoServing]]:
    """`serving("echo-20ms", max_rows=..., queue=...)`"""
    engines: list[EchoServing] = []

    def start(name: str = "echo", *, fails_at: str | None = None, **options: Any) -> EchoServing:
        engines.append(load(name, fails_at=fails_at).serve(**options))
        return engines[-1]

    yield start
    for engine in engines:
        engine.close()


def run(engine: EchoServing, work: Callable[[StrategyModel], Coroutine[Any, Any, Any]], *, room: int = 64, shorten: bool = False) -> Any:
    """Runs something with a model over `engine`."""

    async def main() -> Any:
        bridge = Bridge(engine)
        try:
            return await work(StrategyModel(bridge, Named(model="echo"), room=asyncio.Semaphore(room), shorten=shorten))
        finally:
            bridge.close()

    return asyncio.run(main())


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not true():
            await asyncio.sleep(0.005)


def test_an_answer(serving: Any):
    async def work(model: StrategyModel) -> None:
        completion = await model.answer(HELLO, Sampling())
        assert (completion.text, completion.finish_reason) == ("hello there friend", "stop")
        assert (completion.usage.prompt_tokens, completion.usage.completion_tokens) == (3, 3)
        cut = await model.answer(HELLO, Sampling(max_new_tokens=2))
        assert model.was_cut_short(cut.text) and not model.was_cut_short(completion.text)
        assert model.calls == 2 and model.taken_on.done() and model.name == "echo" and model.error is None

    run(serving(), work)


@pytest.mark.parametrize("room", [64, 5])
def test_a_wide_strategy_leaves_room(serving: Any, room: int):
    engine = serving("echo-20ms", max_rows=64)

    async def work(model: StrategyModel) -> None:
        calls = [asyncio.ensure_future(model.answer(LONG, MOST)) for _ in range(40)]
        await until(lambda: engine.load().running == min(SHARE, room))
        await asyncio.sleep(0.1)
        assert engine.load().running + engine.load().waiting == min(SHARE, room)
        for call in calls:
            call.cancel()
        assert {type(error) for error in await asyncio.gather(*calls, return_exceptions=True)} == {asyncio.CancelledError}
        await until(lambda: engine.load().running + engine.load().waiting == 0)

    run(engine, work, room=room)


def test_a_busy_engine_is_asked_again(serving: Any):
    engine = serving("echo-5ms", max_rows=1, queue=0)

    async def work(model: StrategyModel) -> None:
        first = asyncio.ensure_future(model.answer((Message(role="user", content="w " * 20),), Sampling()))
        await until(lambda: engine.load().running == 1)
        assert (await model.answer(HELLO, Sampling())).text == "hello there friend"
        assert (await first).usage.completion_tokens == 20 and model.calls == 2

    run(engine, work)


@pytest.mark.parametrize("shorten", [False, True])
def test_the_window(serving: Any, shorten: bool):
    sampling = Sampling(max_new_tokens=4096, ignore_end=True)

    async def work(model: StrategyModel) -> None:
        if shorten:
            assert (await model.answer(HELLO, sampling)).usage.completion_tokens == 4093
        else:
            with pytest.raises(WindowError) as failed:
                await model.answer(HELLO, sampling)
            assert model.error is failed.value and not model.taken_on.done()

    run(serving(), work, shorten=shorten)


def test_an_engine_that_fails_or_closes(serving: Any):
    async def fails(model: StrategyModel) -> None:
        with pytest.raises(ServingError) as failed:
            await model.answer(HELLO, Sampling())
        assert model.error is failed.value

    run(serving(fails_at="there"), fails)
    closing = serving("echo-20ms")

    async def closes(model: StrategyModel) -> None:
        call = asyncio.ensure_future(model.answer(LONG, MOST))
        await until(lambda: closing.load().running == 1)
        await asyncio.to_thread(closing.close)
        with pytest.raises(ServingError, match="cancelled"):
            await call
        with pytest.raises(ServingError, match="about to stop"):
            await model.answer(HELLO, Sampling())

    run(closing, closes)
