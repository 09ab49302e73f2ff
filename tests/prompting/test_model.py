"""Engines asked from an event loop: served ones in their own threads, others in ours."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from foreword.engine import Deliver, Request
from foreword.engines.echo import EchoEngine, EchoServing
from foreword.engines.scripted import ScriptedEngine
from foreword.errors import ConfigError, Overloaded, ServingError, WindowError
from foreword.prompting import model
from foreword.prompting.model import MOST_WAITS, GeneratedModel, ServedModel
from foreword.types import Completion, Message, Sampling


def asked(text: str) -> tuple[Message, ...]:
    return (Message(role="user", content=text),)


class Busy(EchoServing):
    """Refuses the first requests as a full engine does."""

    def __init__(self, refusals: int) -> None:
        super().__init__(EchoEngine(name="busy"), max_rows=4, queue=8, resident_bytes=0, step_seconds=0.0)
        self.refusals = refusals
        self.submitted = 0

    def submit(self, request: Request, deliver: Deliver) -> Any:
        self.submitted += 1
        if self.submitted <= self.refusals:
            raise Overloaded("full", retry_after=0.0)
        return super().submit(request, deliver)


async def gone(engine: EchoServing) -> None:
    """Returns once nothing is computed any more."""
    while engine.load().running or engine.load().waiting:
        await asyncio.sleep(0.005)


# Served


def test_many_calls_are_answered_together() -> None:
    async def run() -> list[Completion]:
        served = model.of(EchoEngine(name="echo"))
        assert isinstance(served, ServedModel) and served.name == "echo"
        try:
            return await asyncio.gather(*(served.answer(asked(f"say {number}"), Sampling(logprobs=0)) for number in range(150)))
        finally:
            await served.close()

    answers = asyncio.run(run())
    assert [answer.text for answer in answers] == [f"say {number}" for number in range(150)]
    assert all(answer.usage.completion_tokens == len(answer.token_ids) == len(answer.logprobs) == 2 for answer in answers)
    assert all(answer.finish_reason == "stop" and answer.seconds > 0 for answer in answers)


def test_closing_ends_what_was_started_for_it() -> None:
    async def run() -> None:
        served = model.of(EchoEngine(name="echo"))
        await served.answer(asked("hello"), Sampling())
        await served.close()

    before = {thread.name for thread in threading.enumerate()}
    asyncio.run(run())
    assert "foreword-echo" not in {thread.name for thread in threading.enumerate()} - before


def test_an_engine_that_serves_already_is_left_as_it_was() -> None:
    engine = EchoEngine(name="echo").serve()

    async def run(text: str) -> str:
        served = model.of(engine, name="mine")
        assert served.name == "mine"
        try:
            return (await served.answer(asked(text), Sampling())).text
        finally:
            await served.close()

    assert [asyncio.run(run("one")), asyncio.run(run("two"))] == ["one", "two"]
    engine.close()


def test_a_cancelled_call_gives_up_its_place() -> None:
    async def run() -> None:
        engine = EchoEngine(name="echo-1ms", window=10**9).serve(max_rows=1)
        served = model.of(engine)
        endless = Sampling(max_new_tokens=10**6, ignore_end=True)
        calls = [asyncio.ensure_future(served.answer(asked("x"), endless)) for _ in range(3)]
        while engine.load().running + engine.load().waiting < 3:
            await asyncio.sleep(0.005)
        for call in calls:
            call.cancel()
        assert all(isinstance(ended, asyncio.CancelledError) for ended in await asyncio.gather(*calls, return_exceptions=True))
        await asyncio.wait_for(gone(engine), timeout=60)
        assert (await served.answer(asked("still here"), Sampling())).text == "still here"
        await served.close()
        engine.close()

    asyncio.run(run())


def test_cancelled_before_its_turn_it_is_never_asked() -> None:
    class Slow(EchoServing):
        """Takes its time to take a request on."""

        def __init__(self) -> None:
            super().__init__(EchoEngine(name="slow"), max_rows=4, queue=8, resident_bytes=0, step_seconds=0.0)
            self.begun, self.go_on, self.said = threading.Event(), threading.Event(), list[str]()

        def submit(self, request: Request, deliver: Deliver) -> Any:
            self.begun.set()
            assert self.go_on.wait(60)
            self.said.append(request.conversation[-1].content)
            return super().submit(request, deliver)

    async def run() -> list[str]:
        engine = Slow()
        served = model.of(engine)
        first, second = (asyncio.ensure_future(served.answer(asked(text), Sampling())) for text in ("first", "second"))
        await asyncio.to_thread(engine.begun.wait)
        first.cancel()
        second.cancel()
        await asyncio.gather(first, second, return_exceptions=True)
        engine.go_on.set()
        assert (await served.answer(asked("third"), Sampling())).text == "third"
        await asyncio.wait_for(gone(engine), timeout=60)
        await served.close()
        engine.close()
        return engine.said

    assert asyncio.run(run()) == ["first", "third"]


def test_a_full_engine_is_asked_again() -> None:
    async def run() -> Busy:
        engine = Busy(refusals=3)
        served = model.of(engine)
        assert (await served.answer(asked("now"), Sampling())).text == "now"
        await served.close()
        engine.close()
        return engine

    assert asyncio.run(run()).submitted == 4


def test_an_engine_that_stays_full_is_given_up() -> None:
    async def run() -> Busy:
        engine = Busy(refusals=10**6)
        served = model.of(engine)
        with pytest.raises(Overloaded, match="full"):
            await served.answer(asked("now"), Sampling())
        await served.close()
        engine.close()
        return engine

    assert asyncio.run(run()).submitted == MOST_WAITS


@pytest.mark.parametrize(("text", "error"), [("word " * 5_000, WindowError), ("say crash now", ServingError)])
def test_what_an_engine_refuses_is_raised(text: str, error: type[Exception]) -> None:
    async def run() -> None:
        served = model.of(EchoEngine(name="echo", fails_at="crash"))
        try:
            with pytest.raises(error):
                await served.answer(asked(text), Sampling())
            assert (await served.answer(asked("fine"), Sampling())).text == "fine"
        finally:
            await served.close()

    asyncio.run(run())


# In threads


def test_an_engine_that_only_generates_is_called_in_threads() -> None:
    everyone = threading.Barrier(8, timeout=60)

    def script(conversation: Sequence[Message], sampling: Sampling) -> str:
        everyone.wait()
        return conversation[-1].content.upper()

    async def run() -> list[str]:
        called = model.of(ScriptedEngine(script), name="mine")
        assert isinstance(called, GeneratedModel) and called.name == "mine"
        answers = await asyncio.gather(*(called.answer(asked(f"say {number}"), Sampling()) for number in range(8)))
        await called.close()
        return [answer.text for answer in answers]

    assert asyncio.run(run()) == [f"SAY {number}" for number in range(8)]


def test_errors_of_such_an_engine_are_raised() -> None:
    async def run() -> None:
        called = GeneratedModel(EchoEngine(name="echo", window=4))
        with pytest.raises(WindowError):
            await called.answer(asked("too long for it"), Sampling())
        await called.close()

    asyncio.run(run())


def test_what_cannot_be_asked_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="answers nothing"):
        model.of(object())
    with pytest.raises(ConfigError, match="as a file"):
        model.of(EchoEngine(name="echo"), prefix=object())  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="not its file"):
        model.of(ScriptedEngine(lambda conversation, sampling: ""), files=(tmp_path / "p.safetensors",))
