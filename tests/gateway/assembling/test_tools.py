"""Which tools are sent on."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from foreword.gateway.assembling.tools import MOST, REMEMBERED, Choice, Tools, called_in, described, tool_name
from foreword.gateway.tenants import Tenant
from walking import passage_of, settings_of
from word_vectors import WordVectors


def tool(name: str, description: str = "") -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "description": description, "parameters": {"type": "object"}}}


SHOP = [
    tool("track_parcel", "Tells where a parcel is."),
    tool("getWeather", "The weather of a city on a day."),
    tool("refund", "Pays money back for an invoice."),
    tool("play_music", "Plays a song."),
]


def chosen(body: Any, tools: list[dict[str, Any]] = SHOP, *, memory: Tools | None = None, used: bool = False, **more: Any) -> Choice:
    async def main() -> Choice:
        fields = {"messages": [{"role": "user", "content": body}]} if isinstance(body, str) else body
        passage = passage_of(settings_of(), fields | {"tools": tools}, **more)
        return (memory or Tools(WordVectors())).choose(passage, tools, with_used=used)

    return asyncio.run(main())


def names(choice: Choice, tools: list[dict[str, Any]] = SHOP) -> list[str | None]:
    return [tool_name(tools[place]) for place in choice.kept]


@pytest.mark.parametrize("embedder", [WordVectors(), None])
def test_tools_that_the_words_match_are_kept(embedder: Any) -> None:
    assert names(chosen("where is my parcel", memory=Tools(embedder))) == ["track_parcel"]
    assert names(chosen("weather of the city", memory=Tools(embedder))) == ["getWeather"]


def test_the_likest_is_kept_though_little_like() -> None:
    assert len(chosen("zebra crossing").kept) == 1


def test_the_turn_before_counts_too() -> None:
    talk = [
        {"role": "user", "content": "where is my parcel"},
        {"role": "assistant", "content": "Which?"},
        {"role": "user", "content": "No 7"},
    ]
    assert "track_parcel" in names(chosen({"messages": talk}))


def test_no_more_than_most_are_kept() -> None:
    alike = [tool(f"track_parcel_{number}", "Tells where a parcel is.") for number in range(40)]
    assert len(chosen("track where a parcel is", alike).kept) == MOST


@pytest.mark.parametrize(
    "choice",
    [
        {"type": "function", "function": {"name": "play_music"}},
        {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [{"type": "function", "function": {"name": "play_music"}}]}},
    ],
)
def test_a_tool_that_the_client_names_is_kept(choice: dict[str, Any]) -> None:
    body = {"messages": [{"role": "user", "content": "where is my parcel"}], "tool_choice": choice}
    found = chosen(body)
    assert names(found) == ["track_parcel", "play_music"]
    assert [tool_name(SHOP[place]) for place in found.spare] == ["track_parcel"]


def test_a_tool_whose_call_stands_in_the_conversation_is_kept() -> None:
    call = {"id": "1", "type": "function", "function": {"name": "refund", "arguments": "{}"}}
    talk = [
        {"role": "user", "content": "please"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "1", "content": "done"},
        {"role": "user", "content": "where is my parcel"},
    ]
    assert names(chosen({"messages": talk})) == ["track_parcel", "refund"]


def test_what_is_no_function_is_kept() -> None:
    tools = [{"type": "web_search"}, *SHOP]
    assert chosen("where is my parcel", tools).kept == (0, 1)


def test_used_ones_are_kept_for_the_tenant_and_task_type_that_used_them() -> None:
    async def main() -> list[list[str | None]]:
        memory = Tools(WordVectors())
        settings = settings_of({"shop": {}, "other": {}})
        body = {"messages": [{"role": "user", "content": "where is my parcel"}], "tools": SHOP}
        one, two = Tenant(name="one"), Tenant(name="two")
        memory.remember(passage_of(settings, body, task="shop", tenant=one), ["play_music", ""])
        asked = [("shop", one), ("other", one), ("shop", two)]
        return [names(memory.choose(passage_of(settings, body, task=task, tenant=tenant), SHOP, with_used=True)) for task, tenant in asked]

    assert asyncio.run(main()) == [["track_parcel", "play_music"], ["track_parcel"], ["track_parcel"]]


def test_what_was_used_long_ago_is_forgotten() -> None:
    async def main() -> tuple[frozenset[str], frozenset[str]]:
        memory, passage = Tools(None), passage_of(settings_of(), "hello")
        memory.remember(passage, ["old"])
        for _ in range(REMEMBERED - 1):
            memory.remember(passage, ["new", "new"])
        before = memory.used(passage)
        memory.remember(passage, ["new"])
        return before, memory.used(passage)

    assert asyncio.run(main()) == ({"old", "new"}, {"new"})


def test_the_least_like_may_go_first_and_the_likest_not_at_all() -> None:
    tools = [tool("track_parcel", "Tells where a parcel is."), tool("parcel_price", "The price of sending a parcel.")]
    found = chosen("where is my parcel", tools)
    assert found.kept == (0, 1) and found.spare == (1,)


def test_names_become_words() -> None:
    assert described(tool("getUser_profile.v2", "Reads it.")).split() == ["get", "User", "profile", "v2", "Reads", "it."]
    assert described({"type": "web_search"}).strip() == ""


def test_malformed_tools_and_calls_are_no_trouble() -> None:
    odd: list[dict[str, Any]] = [
        {},
        {"type": "function"},
        {"type": "function", "function": {"name": 3}},
        {"function": {"name": "x", "description": 5}},
    ]
    assert chosen("hello", odd).kept == (0, 1, 2)
    assert called_in([]) == []
