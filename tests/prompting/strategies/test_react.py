"""Thoughts and calls in turn, with models that are told what to say."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest

from foreword.engines.scripted import ScriptedEngine
from foreword.errors import ConfigError
from foreword.prompting import model, strategy
from foreword.prompting.strategy import Budget, Resources, Solved
from foreword.prompting.tool import Tool, Tools
from foreword.types import Message, Sampling

QUESTION = (Message(role="user", content="What is 6 times 7?"),)


def tool(call: Callable[[Mapping[str, Any]], Any], *, name: str = "calculator", **settings: Any) -> Tool:
    async def called(arguments: Mapping[str, Any]) -> str:
        made = call(arguments)
        return await made if asyncio.iscoroutine(made) else made

    parameters = {"type": "object", "properties": {"expression": {"type": "string"}}, "required": ["expression"]}
    return Tool(name=name, description="Computes.", parameters=parameters, call=called, **settings)


def times(arguments: Mapping[str, Any]) -> str:
    left, right = arguments["expression"].split("*")
    return str(int(left) * int(right))


def solved(script: Any, *tools: Tool, budget: Budget | None = None, **settings: Any) -> Solved:
    """What comes of a script: a function, or answers given one after the other (the last one for ever)."""
    if not callable(script):
        script = in_turn(script)

    async def run() -> Solved:
        asked = model.of(ScriptedEngine(script))
        try:
            return await strategy.solve(
                strategy.get("react", **settings), QUESTION, asked, resources=Resources(tools=Tools.of(tools)), budget=budget
            )
        finally:
            await asked.close()

    return asyncio.run(run())


def in_turn(answers: Sequence[str]) -> Callable[..., str]:
    lock, said = threading.Lock(), iter(answers)
    last = [answers[-1]]

    def script(conversation: Sequence[Message], sampling: Sampling) -> str:
        with lock:
            return next(said, last[0])

    return script


def call(arguments: str, name: str = "calculator") -> str:
    return f"Thought: let me see\nAction: {name}\nAction Input: {arguments}"


CALL = call('{"expression": "6 * 7"}')


def test_a_tool_is_called_and_its_word_is_taken() -> None:
    def script(conversation: Sequence[Message], sampling: Sampling) -> str:
        assert sampling.stop == ("\nObservation:",)
        told = conversation[-1].content
        return f"Thought: there it is\nFinal Answer: {told.removeprefix('Observation: ')}" if "Observation" in told else CALL

    found = solved(script, tool(times))
    assert (found.text, found.final, found.status, found.calls) == ("42", "42", "answered", 2)
    (span,) = found.trace.of_kind("tool")
    assert (span.name, span.status) == ("calculator", "ok")
    assert span.attributes == {"arguments": '{"expression": "6 * 7"}', "ok": True, "text": "42"}
    assert "1 calls" in found.note


def test_the_model_is_told_of_its_tools_and_goes_on_from_what_it_said() -> None:
    found = solved([CALL, "Final Answer: 42"], tool(times))
    first, second = (span.attributes["prompt"] for span in found.trace.of_kind("call"))
    assert [message["role"] for message in first] == ["system", "user"]
    assert "- calculator: Computes." in first[0]["content"]
    assert second[:2] == first
    assert second[2:] == [{"role": "assistant", "content": CALL}, {"role": "user", "content": "Observation: 42"}]


def test_what_the_model_makes_up_is_dropped() -> None:
    # An engine that knows no stop texts would hand these on.
    found = solved(lambda conversation, sampling: CALL if len(conversation) < 3 else "Final Answer: 42", tool(times))
    assert "Observation" not in found.trace.of_kind("call")[1].attributes["prompt"][2]["content"]


def test_a_bare_argument_is_enough() -> None:
    assert solved(["Action: calculator[6 * 7]", "Finish[42]"], tool(times)).trace.of_kind("tool")[0].attributes["text"] == "42"


def test_a_model_that_never_writes_the_form_is_told_and_ends() -> None:
    found = solved(["It is about tea."], tool(times), most_problems=2)
    assert (found.status, found.calls) == ("failed", 3)
    assert "3 turns of the model that led nowhere" in found.reason
    assert found.text == "It is about tea."
    told = found.trace.of_kind("call")[1].attributes["prompt"][-1]["content"]
    assert "Action Input:" in told and "Final Answer:" in told


def test_a_model_that_says_nothing_ends() -> None:
    found = solved([""], tool(times))
    assert (found.status, found.text) == ("failed", "")


def test_one_slip_is_forgiven() -> None:
    found = solved(["Hm.", CALL, "Final Answer: 42"], tool(times))
    assert (found.status, found.final) == ("answered", "42")


def test_a_tool_that_does_not_exist_is_told() -> None:
    found = solved([call("{}", "calculater"), "Final Answer: 42"], tool(times))
    (span,) = found.trace.of_kind("tool")
    assert span.status == "error"
    assert "Did you mean `calculator`?" in span.message
    assert found.status == "answered"


def test_bad_json_is_told() -> None:
    found = solved([call('{"expression": "6'), CALL, "Final Answer: 42"], tool(times))
    first, second = found.trace.of_kind("tool")
    assert first.status == "error"
    assert (second.status, found.final) == ("ok", "42")


def test_a_call_in_a_circle_is_made_once_and_ends() -> None:
    made: list[Any] = []

    def counted(arguments: Mapping[str, Any]) -> str:
        made.append(arguments)
        return "nothing found"

    other_spacing = call('{ "expression" :"6 * 7" }')
    found = solved([CALL, other_spacing, CALL], tool(counted), most_problems=3)
    assert len(made) == 1
    assert (found.status, found.calls) == ("failed", 5)
    prompt = found.trace.of_kind("call")[2].attributes["prompt"]
    assert "before, and it said: nothing found" in prompt[-1]["content"]
    assert "before" in found.reason


def test_an_endless_search_ends_and_the_last_turn_is_told() -> None:
    def script(conversation: Sequence[Message], sampling: Sampling) -> str:
        return call(json.dumps({"expression": f"{len(conversation)} * 1"}))

    found = solved(script, tool(times), steps=4)
    assert (found.status, found.calls) == ("failed", 4)
    assert "no final answer after 4 steps" in found.reason
    prompts = [span.attributes["prompt"][-1]["content"] for span in found.trace.of_kind("call")]
    assert ["last turn" in prompt for prompt in prompts] == [False, False, False, True]
    assert found.text == "let me see"


def test_a_tool_that_hangs_is_given_up() -> None:
    async def hang(arguments: Mapping[str, Any]) -> str:
        await asyncio.sleep(3600)
        return ""

    found = solved([CALL, "Final Answer: 42"], tool(hang, seconds=0.05))
    assert "longer than 0.05 seconds" in found.trace.of_kind("tool")[0].message
    assert found.status == "answered"


def test_a_tool_that_raises_is_told() -> None:
    found = solved([CALL, "Final Answer: 42"], tool(lambda arguments: 1 // 0))
    assert "ZeroDivisionError" in found.trace.of_kind("tool")[0].message
    assert found.status == "answered"


def test_ten_megabytes_are_cut() -> None:
    found = solved([CALL, "Final Answer: 42"], tool(lambda arguments: "x" * 10_000_000, most_characters=5_000), most_characters=100)
    told = found.trace.of_kind("call")[1].attributes["prompt"][-1]["content"]
    assert len(told) < 200
    assert "more characters]" in told
    assert len(json.dumps([span.model_dump() for span in found.trace.of_kind("tool")])) < 5_000


def test_the_budget_ends_it_with_the_best_there_was() -> None:
    found = solved(lambda conversation, sampling: call(f'{{"expression": "{len(conversation)}*1"}}'), tool(times), budget=Budget(calls=2))
    assert (found.status, found.calls, found.text) == ("budget", 2, "let me see")


def test_without_tools_it_says_what_it_lacks() -> None:
    with pytest.raises(ConfigError, match="calls tools, and there are none"):
        solved(["Final Answer: 42"])


def test_runs_at_once_do_not_mix() -> None:
    def script(conversation: Sequence[Message], sampling: Sampling) -> str:
        told = conversation[-1].content
        if told.startswith("Observation: "):
            return f"Final Answer: {told.removeprefix('Observation: ')}"
        return call(json.dumps({"expression": f"{told} * 2"}))

    async def run() -> list[Solved]:
        asked = model.of(ScriptedEngine(script))
        resources = Resources(tools=Tools.of([tool(times)]))
        chosen = strategy.get("react")
        try:
            return await strategy.together(
                [strategy.solve(chosen, (Message(role="user", content=str(n)),), asked, resources=resources) for n in range(50)]
            )
        finally:
            await asked.close()

    assert [found.final for found in asyncio.run(run())] == [str(2 * n) for n in range(50)]
