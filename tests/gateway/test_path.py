"""How a passage walks along stages."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from foreword.errors import RegistryError
from foreword.gateway.errors import Refusal
from foreword.gateway.passage import Event, Passage, Reply
from foreword.gateway.path import Path
from foreword.gateway.stage import ORDER, Next, Stage
from walking import parts_of, passage_of, settings_of

NAMES = ("intake", "cache", "route", "infer", "check", "bill")


def reply_of(text: str, model: str = "big") -> Reply:
    return Reply(model=model, body=text.encode(), text=text, finish_reason="stop", consumed=None)


class Walk:
    """A path of stages that note that they were come by, each with what a test has it do besides."""

    def __init__(self, **does: Callable[[Passage], Awaitable[Next | None] | Next | None]) -> None:
        self.passed: list[str] = []
        self.settings = settings_of()
        self.path = Path([(name, self._stage(name, does.get(name))) for name in NAMES], parts_of(self.settings))

    def _stage(self, name: str, does: Any) -> Stage:
        async def stage(passage: Passage) -> Next:
            self.passed.append(name)
            if name == "infer" and does is None:
                passage.reply = reply_of("an answer")
            found = None if does is None else does(passage)
            if asyncio.iscoroutine(found):
                found = await found
            return found or Next.ON

        return stage

    def run(self, act: Callable[[Passage], Awaitable[Any]] | None = None) -> Passage:
        async def main() -> Passage:
            passage = passage_of(self.settings, "Hi.")
            await (act or self.path.walk)(passage)
            return passage

        return asyncio.run(main())


def test_a_passage_comes_by_every_stage_in_their_order() -> None:
    walk = Walk()
    assert walk.run().reply is not None and tuple(walk.passed) == NAMES == walk.path.names


def test_one_that_is_answered_already_goes_past_the_models() -> None:
    def hit(passage: Passage) -> Next:
        passage.reply = reply_of("kept")
        return Next.ANSWERED

    walk = Walk(cache=hit)
    walk.run()
    assert walk.passed == ["intake", "cache", "check", "bill"]


def test_one_goes_back_for_another_answer_once_and_no_more() -> None:
    walk = Walk(check=lambda passage: Next.AGAIN)
    walk.run()
    assert walk.passed == ["intake", "cache", "route", "infer", "check", "infer", "check", "bill"]


def test_a_refusal_ends_the_walk_and_is_billed_by_whoever_sees_it() -> None:
    def refuse(passage: Passage) -> None:
        raise Refusal(404, "No.")

    walk = Walk(route=refuse)

    async def act(passage: Passage) -> None:
        with pytest.raises(Refusal):
            await walk.path.walk(passage)
        await walk.path.bill(passage)

    walk.run(act)
    assert walk.passed == ["intake", "cache", "route", "bill"]


def test_a_stream_stops_behind_infer_until_it_is_finished() -> None:
    async def events() -> Any:
        yield Event(data=b"data: {}\n\n")

    done: list[str] = []

    async def after() -> None:
        done.append("after")

    def infer(passage: Passage) -> None:
        passage.events = events()
        passage.afterwards.append(after)

    walk = Walk(infer=infer)

    async def act(passage: Passage) -> None:
        await walk.path.walk(passage)
        assert walk.passed == ["intake", "cache", "route", "infer"] and not done
        await walk.path.finish(passage)

    walk.run(act)
    assert walk.passed == ["intake", "cache", "route", "infer", "check", "bill"] and done == ["after"]


def test_what_fails_behind_an_answer_is_logged_and_takes_nothing_else_with_it(caplog: pytest.LogCaptureFixture) -> None:
    done: list[str] = []

    async def fails() -> None:
        raise ValueError("the client's secret words")

    async def works() -> None:
        done.append("works")

    def intake(passage: Passage) -> None:
        passage.afterwards += [fails, works]

    with caplog.at_level(logging.WARNING):
        passage = Walk(intake=intake).run()
    assert passage.reply is not None and done == ["works"]
    assert "ValueError" in caplog.text and "secret" not in caplog.text


def test_what_is_done_afterwards_is_done_once_and_to_its_end_though_the_client_leaves() -> None:
    done: list[str] = []
    began = asyncio.Event()

    async def slow() -> None:
        began.set()
        await asyncio.sleep(0.05)
        done.append("slow")

    def intake(passage: Passage) -> None:
        passage.afterwards.append(slow)

    walk = Walk(intake=intake)

    async def act(passage: Passage) -> None:
        walking = asyncio.ensure_future(walk.path.walk(passage))
        await began.wait()
        walking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await walking
        await walk.path.bill(passage)
        await asyncio.sleep(0.1)

    walk.run(act)
    assert done == ["slow"]


def test_texts_take_the_same_stages_but_those_for_conversations() -> None:
    walk = Walk()

    async def infer(passage: Passage) -> Next:
        walk.passed.append("infer of texts")
        passage.reply = reply_of("on")
        return Next.ON

    texts = walk.path.for_texts(infer)
    walk.run(texts.walk)
    assert texts.names == ("intake", "route", "infer", "bill")
    assert walk.passed == ["intake", "route", "infer of texts", "bill"]


def test_stages_that_are_to_end_are_ended_the_last_one_first() -> None:
    ended: list[str] = []

    async def main() -> None:
        parts = parts_of(settings_of())
        path = Path.of(parts)
        assert path.names == ORDER
        for name in ("first", "second"):

            async def end(name: str = name) -> None:
                ended.append(name)

            parts.closing.append(end)
        await path.close()

    asyncio.run(main())
    assert ended == ["second", "first"]


def test_a_stage_that_there_is_not_is_told_with_those_that_there_are() -> None:
    settings = settings_of(stages=["intake", "route", "infer", "chekc", "bill"])
    with pytest.raises(RegistryError, match="check"):
        Path.of(parts_of(settings))
