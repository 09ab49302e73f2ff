"""What stages read of a passage."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from foreword.gateway.passage import Passage, Rejected, Reply, TargetError
from walking import passage_of, settings_of


def passage(task: dict[str, Any], body: dict[str, Any]) -> Passage:
    async def main() -> Passage:
        return passage_of(settings_of({"t": task}), {"messages": [{"role": "user", "content": "Hi."}], **body}, task="t")

    return asyncio.run(main())


@pytest.mark.parametrize(
    ("task", "body", "buffered"),
    [
        ({}, {}, True),
        ({}, {"stream": False}, True),
        ({}, {"stream": True}, False),
        ({"check": {"regex": "a"}}, {"stream": True}, True),
        # Judged, but not replaced: it can be sent as it comes.
        ({"check": {"regex": "a", "escalate": False}}, {"stream": True}, False),
        ({"check": {"escalate": True}}, {"stream": True}, False),
    ],
)
def test_an_answer_is_held_back_where_another_may_take_its_place(task: dict[str, Any], body: dict[str, Any], buffered: bool) -> None:
    assert passage(task, body).buffered is buffered


def test_an_earlier_answer_can_be_taken_back() -> None:
    reply = Reply(model="small", body=b"{}", text="a", finish_reason="stop", consumed=None)
    one = passage({}, {})
    one.model, one.prefix, one.told = "big", "", {"foreword-model": "big", "foreword-task": "t"}
    one.take_back(Rejected(reply=reply, model="small:p", prompt="q@v1", prefix="p@v2", score=0.3))
    assert (one.reply, one.model, one.prompt, one.prefix) == (reply, "small:p", "q@v1", "p@v2")
    assert one.told == {"foreword-model": "small:p", "foreword-task": "t"}


def test_passages_share_nothing() -> None:
    first, second = passage({}, {}), passage({}, {})
    first.told["a"] = "b"
    first.tiers.append("x")
    assert not second.told and not second.tiers and first != second


def test_a_failed_call_says_what_is_known_of_it() -> None:
    error = TargetError("`big` is busy.", status="unavailable", http_status=429, retry_after=2.0)
    assert (error.status, error.http_status, error.retry_after, error.refusal, error.begun) == ("unavailable", 429, 2.0, None, False)
