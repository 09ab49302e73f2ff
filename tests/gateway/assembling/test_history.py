"""The window of a history, and summaries that are extended and never made twice."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from foreword.gateway.assembling.budget import message_tokens
from foreword.gateway.assembling.history import MOST_MESSAGE, Summaries, window
from foreword.gateway.assembling.turns import Turn
from foreword.gateway.passage import Passage
from foreword.gateway.path_wire import PathMessage
from foreword.gateway.tenants import Tenant
from upstreams import FakeUpstream, answer, hang, refuse, upstream
from walking import close, parts_of, passage_of, settings_of


def turns(*texts: str) -> list[Turn]:
    return [(PathMessage(role="user", content=text), PathMessage(role="assistant", content=f"answer to {text}")) for text in texts]


@pytest.mark.parametrize(("limit", "kept"), [(None, 4), (9, 4), (4, 4), (1, 1)])
def test_the_last_turns_stay(limit: int | None, kept: int) -> None:
    assert window(turns("a", "b", "c", "d"), most_turns=limit, most_tokens=None) == kept


def test_only_whole_turns_stay_and_none_before_one_that_is_too_long() -> None:
    history = turns("short", "x" * 400, "short")
    last = message_tokens(history[-1])
    assert window(history, most_turns=None, most_tokens=last) == 1
    assert window(history, most_turns=None, most_tokens=last - 1) == 0
    # The first one would fit, but what a reader gets must be in one piece.
    assert window(history, most_turns=None, most_tokens=last + message_tokens(history[0])) == 1
    assert window(history, most_turns=None, most_tokens=10_000) == 3


def summaries_of(
    fake: FakeUpstream, *histories: Sequence[Turn], tenants: Sequence[str] = (), most_kept: int = 100, **more: Any
) -> tuple[list[str | None], list[Passage]]:
    """The summaries of histories, asked for one after the other."""

    async def main() -> tuple[list[str | None], list[Passage]]:
        settings = settings_of({"default": more}, url=fake.url)
        parts = parts_of(settings)
        summaries = Summaries(parts.targets, settings, most_kept=most_kept)
        found, passages = [], []
        for number, history in enumerate(histories):
            tenant = Tenant(name=tenants[number] if tenants else "t")
            passages.append(passage_of(settings, "and now?", tenant=tenant))
            found.append(await summaries.of(passages[-1], "big", history))
        assert len(summaries) <= most_kept
        await close(parts)
        return found, passages

    return asyncio.run(main())


def asked(fake: FakeUpstream, number: int) -> str:
    return fake.seen[number].body["messages"][-1]["content"]


def test_what_fell_out_is_summarised_and_billed() -> None:
    with upstream(answer("They talked of a and b.")) as fake:
        found, passages = summaries_of(fake, turns("a", "b"))
    assert found == ["They talked of a and b."]
    assert "user: a\nassistant: answer to a\nuser: b" in asked(fake, 0)
    assert fake.seen[0].body["max_tokens"] == 256 and "tools" not in fake.seen[0].body
    [attempt] = passages[0].attempts
    assert (attempt.why, attempt.status, attempt.model) == ("summary", "answered", "big")
    assert attempt.consumed is not None and attempt.consumed.output_tokens == 7


def test_a_summary_is_made_once() -> None:
    with upstream(answer("Once.")) as fake:
        found, passages = summaries_of(fake, turns("a", "b"), turns("a", "b"))
    assert found == ["Once.", "Once."] and len(fake.seen) == 1
    assert passages[1].attempts == []


def test_a_summary_is_extended_by_what_fell_out_since() -> None:
    with upstream(answer("About a."), answer("About a and b.")) as fake:
        found, _ = summaries_of(fake, turns("first"), turns("first", "second"))
    assert found == ["About a.", "About a and b."]
    assert "About a." in asked(fake, 1) and "user: second" in asked(fake, 1) and "user: first" not in asked(fake, 1)


def test_another_beginning_is_another_conversation() -> None:
    with upstream(answer("One."), answer("Two.")) as fake:
        found, _ = summaries_of(fake, turns("a", "b"), turns("c", "b"))
    assert found == ["One.", "Two."] and "One." not in asked(fake, 1)


def test_a_summary_of_one_tenant_is_none_of_another() -> None:
    with upstream(answer("Mine."), answer("Yours.")) as fake:
        found, _ = summaries_of(fake, turns("a"), turns("a"), tenants=["one", "two"])
    assert found == ["Mine.", "Yours."]


def test_the_longest_unused_are_forgotten() -> None:
    with upstream(answer("One."), answer("Two."), answer("Three."), answer("One again.")) as fake:
        found, _ = summaries_of(fake, turns("a"), turns("b"), turns("c"), turns("a"), most_kept=2)
    assert found[-1] == "One again." and len(fake.seen) == 4


def test_a_model_that_fails_gives_none_and_is_left_in_peace_for_a_while() -> None:
    with upstream(refuse(500)) as fake:
        found, passages = summaries_of(fake, turns("a"), turns("b"))
    assert found == [None, None] and len(fake.seen) == 1
    [attempt] = passages[0].attempts
    assert (attempt.status, attempt.http_status, attempt.why) == ("unavailable", 500, "summary")
    assert passages[1].attempts == []


def test_an_empty_summary_is_none() -> None:
    with upstream(answer("  ")) as fake:
        assert summaries_of(fake, turns("a"))[0] == [None]


def test_it_takes_a_part_of_the_time_and_no_more() -> None:
    with upstream(hang()) as fake:
        found, passages = summaries_of(fake, turns("a"), seconds=0.3)
    assert found == [None]
    assert passages[0].attempts[0].status == "timeout"


def test_long_messages_are_shortened_and_calls_are_told() -> None:
    call = {"id": "1", "type": "function", "function": {"name": "find_parcel", "arguments": '{"id": 7}'}}
    turn = (PathMessage(role="user", content="x" * 50_000), PathMessage(role="assistant", tool_calls=[call]))
    with upstream(answer("Ok.")) as fake:
        summaries_of(fake, [turn])
    assert "find_parcel" in asked(fake, 0)
    assert MOST_MESSAGE / 2 < asked(fake, 0).count("x") <= MOST_MESSAGE
