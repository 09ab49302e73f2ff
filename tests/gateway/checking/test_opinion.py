"""The judge's call: what is recorded, and what is said where no score comes of it."""

from __future__ import annotations

import asyncio
from typing import Any

from foreword.gateway.checking.opinion import NO_ANSWER, NO_MONEY, NO_NUMBER, opinion
from foreword.gateway.passage import Passage, Reply
from foreword.gateway.path_wire import PathRequest
from upstreams import Behaviour, answer, hang, refuse, upstream
from walking import close, parts_of, passage_of, settings_of

REPLY = Reply(model="big", body=b"", text="Four.", finish_reason="stop", consumed=None)


class NoMoney:
    async def reserve(self) -> None:
        raise AssertionError("a judge is not the first call")

    async def more(self, model: str, request: PathRequest) -> bool:
        return False


def ask(*behaviours: Behaviour, **fields: Any) -> tuple[float | str, Passage, list[Any]]:
    with upstream(*behaviours) as fake:
        settings = settings_of({"default": {"check": {"judge": "big", "rubric": "It is right."}}}, url=fake.url)
        parts = parts_of(settings)

        async def run() -> tuple[float | str, Passage]:
            passage = passage_of(settings, "What is two and two?")
            for name, value in fields.items():
                setattr(passage, name, value)
            if "deadline" in fields:
                passage.deadline = asyncio.get_running_loop().time() + fields["deadline"]
            try:
                return await opinion(passage, REPLY, parts.targets, settings), passage
            finally:
                await close(parts)

        return *asyncio.run(run()), fake.seen


def test_a_score_and_what_it_took() -> None:
    score, passage, seen = ask(answer("Score: 0.8"))
    assert score == 0.8
    assert [(attempt.why, attempt.status, attempt.model) for attempt in passage.attempts] == [("judge", "answered", "big")]
    assert passage.attempts[0].consumed is not None and passage.attempts[0].consumed.output_tokens == 7
    assert "two and two" in seen[0].body["messages"][1]["content"] and "It is right." in seen[0].body["messages"][1]["content"]


def test_words_without_a_number_are_no_score() -> None:
    score, passage, _ = ask(answer("Splendid."))
    assert score == NO_NUMBER and len(passage.attempts) == 1


def test_a_judge_that_fails_is_recorded() -> None:
    score, passage, _ = ask(refuse(500))
    assert score == NO_ANSWER
    assert {(attempt.why, attempt.status, attempt.http_status) for attempt in passage.attempts} == {("judge", "unavailable", 500)}


def test_a_judge_has_only_the_time_that_is_left() -> None:
    score, passage, _ = ask(hang(), deadline=0.05)
    assert score == NO_ANSWER and passage.attempts[0].status == "timeout"
    score, passage, seen = ask(answer("1"), deadline=-1.0)
    assert score == NO_ANSWER and not seen and not passage.attempts


def test_a_judge_that_no_budget_has_money_for_is_not_asked() -> None:
    score, passage, seen = ask(answer("1"), hold=NoMoney())
    assert score == NO_MONEY and not seen and not passage.attempts
