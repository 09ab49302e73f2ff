"""Whatever a tool does, an observation comes of it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from foreword.errors import ConfigError, ToolError
from foreword.prompting.tool import MOST_ARGUMENTS, Observation, Tool, Tools


def tool(call: Any, name: str = "echo", **settings: Any) -> Tool:
    async def called(arguments: Mapping[str, Any]) -> str:
        made = call(arguments)
        return await made if asyncio.iscoroutine(made) else made

    return Tool(name=name, description="Says it back.", parameters={"type": "object"}, call=called, **settings)


def observed(call: Any, arguments: str | Mapping[str, Any] = "{}", name: str = "echo", **settings: Any) -> Observation:
    return asyncio.run(Tools.of([tool(call, **settings)]).call(name, arguments))


def say(arguments: Mapping[str, Any]) -> str:
    return repr(dict(arguments))


@pytest.mark.parametrize("arguments", ['{"a": [1]}', {"a": [1]}])
def test_a_call_gives_its_text(arguments: Any) -> None:
    assert observed(say, arguments) == Observation(text="{'a': [1]}", ok=True)


@pytest.mark.parametrize("arguments", ["", "tea", '{"a": ', "{'a': 1}", "[" * 100_000])
def test_what_is_no_json_is_told(arguments: str) -> None:
    found = observed(say, arguments)
    assert not found.ok
    assert "no JSON" in found.text


@pytest.mark.parametrize("arguments", ["[1]", "1", "null", '"a"'])
def test_what_is_no_object_is_told(arguments: str) -> None:
    found = observed(say, arguments)
    assert not found.ok
    assert "must be a JSON object" in found.text


def test_arguments_without_end_are_refused() -> None:
    found = observed(say, '{"a": "' + "x" * MOST_ARGUMENTS + '"}')
    assert not found.ok
    assert "100,000 are taken" in found.text


def test_a_tool_that_does_not_exist_is_told_with_those_that_do() -> None:
    found = observed(say, name="ecko" + "o" * 1000)
    assert not found.ok
    assert "Tools: echo." in found.text
    assert len(found.text) < 200
    assert "Did you mean `echo`?" in observed(say, name="ecco").text
    assert asyncio.run(Tools().call("any", "{}")) == Observation(text="There is no tool `any`. Tools: none.", ok=False)


def test_what_the_caller_can_mend_is_told_as_it_is() -> None:
    def refuse(arguments: Mapping[str, Any]) -> str:
        raise ToolError("Give a year after 1900.")

    assert observed(refuse) == Observation(text="Give a year after 1900.", ok=False)


def test_any_other_failure_is_told_with_its_kind() -> None:
    assert observed(lambda arguments: arguments["year"]) == Observation(text="`echo` failed: KeyError: 'year'", ok=False)


def test_a_failure_without_end_is_cut() -> None:
    def fail(arguments: Mapping[str, Any]) -> str:
        raise ValueError("x" * 10_000_000)

    assert len(observed(fail, most_characters=100).text) < 200


def test_a_tool_that_hangs_is_given_up() -> None:
    async def hang(arguments: Mapping[str, Any]) -> str:
        await asyncio.sleep(3600)
        return ""

    assert observed(hang, seconds=0.02) == Observation(text="`echo` took longer than 0.02 seconds and was given up.", ok=False)


def test_ten_megabytes_are_cut_and_the_text_says_so() -> None:
    found = observed(lambda arguments: "x" * 10_000_000, most_characters=1_000)
    assert found.ok
    assert found.text == "x" * 1_000 + "\n[cut: 9,999,000 more characters]"


def test_a_caller_that_is_cancelled_is_cancelled() -> None:
    async def run() -> None:
        async def hang(arguments: Mapping[str, Any]) -> str:
            await asyncio.sleep(3600)
            return ""

        under_way = asyncio.ensure_future(Tools.of([tool(hang)]).call("echo", "{}"))
        await asyncio.sleep(0)
        under_way.cancel()
        with pytest.raises(asyncio.CancelledError):
            await under_way

    asyncio.run(run())


def test_two_tools_of_one_name_are_refused() -> None:
    with pytest.raises(ConfigError, match="Two tools are named `echo`"):
        Tools.of([tool(say), tool(say)])


def test_tools_are_counted_and_walked_in_order() -> None:
    tools = Tools.of([tool(say, "b"), tool(say, "a")])
    assert ([one.name for one in tools], len(tools)) == (["b", "a"], 2)
