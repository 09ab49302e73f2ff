"""What models say, in all the forms in which they say it."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from typing import Any

import pytest

from foreword.prompting import tool_calls
from foreword.prompting.tool import Tool, Tools
from foreword.prompting.tool_calls import Step, parse


async def nothing(arguments: Mapping[str, Any]) -> str:
    return ""


def tool(name: str = "calculator", **properties: Any) -> Tool:
    parameters = {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}
    return Tool(name=name, description="Computes\n  exactly.", parameters=parameters, call=nothing)


CALLS = {
    "as asked": 'Thought: sum\nAction: add\nAction Input: {"a": 1}',
    "with words after the arguments": 'Thought: sum\nAction: add\nAction Input: {"a": 1}\n\nI will wait for the result.',
    "numbered as in the paper": 'Thought 1: sum\nAction 1: add[{"a": 1}]',
    "in brackets": 'Thought: sum\nAction: add[{"a": 1}]',
    "as a function": "Thought: sum\nAction: add(a=1)",
    "as a function with an object": 'Thought: sum\nAction: add({"a": 1})',
    "on one line": 'Thought: sum\nAction: add {"a": 1}',
    "with a colon": 'Thought: sum\nAction: add: {"a": 1}',
    "on the next line": 'Thought: sum\nAction: add\n{"a": 1}',
    "in bold": '**Thought:** sum\n**Action:** `add`\n**Action Input:** {"a": 1}',
    "in capitals": 'THOUGHT: sum\nACTION: add\nACTION_INPUT: {"a": 1}',
    "arguments called otherwise": 'Thought: sum\nAction: add\nArguments: {"a": 1}',
    "fenced arguments": 'Thought: sum\nAction: add\nAction Input:\n```json\n{"a": 1}\n```',
    "an object after the action": 'Thought: sum\nAction: {"tool": "add", "arguments": {"a": 1}}',
    "an object in a fence": 'Thought: sum\nAction:\n```json\n{"action": "add", "action_input": {"a": 1}}\n```',
    "an object alone": '{"thought": "sum", "tool": "add", "arguments": {"a": 1}}',
    "an object after a thought": 'Thought: sum\n\n{"name": "add", "parameters": {"a": 1}}',
    "a fence alone": 'Thought: sum\n```json\n{"name": "add", "arguments": {"a": 1}}\n```',
    "a tag": 'sum\n<tool_call>\n{"name": "add", "arguments": {"a": 1}}\n</tool_call>',
    "a tag that is not closed": 'sum <tool_call>{"name": "add", "arguments": {"a": 1}}',
    "as OpenAI writes it": '{"thought": "sum", "function": {"name": "add", "arguments": "{\\"a\\": 1}"}}',
    "in a list": 'sum\n[{"name": "add", "arguments": {"a": 1}}]',
    "as Python writes it": "{'thought': 'sum', 'tool': 'add', 'arguments': {'a': 1}}",
    "an object of something else before": 'sum\n{"name": "Ben"} {"name": "add", "arguments": {"a": 1}}',
    "after thinking": '<think>sum</think>\nAction: add\nAction Input: {"a": 1}',
    "with what it makes up": 'Thought: sum\nAction: add\nAction Input: {"a": 1}\nObservation: 2\nThought: done\nFinal Answer: 2',
    "two calls, of which the first counts": 'Thought: sum\nAction: add\nAction Input: {"a": 1}\nAction: cut\nAction Input: {"b": 1}',
    "a call before an answer": 'Thought: sum\nAction: add\nAction Input: {"a": 1}\nFinal Answer: 2',
}


@pytest.mark.parametrize("said", CALLS.values(), ids=CALLS)
def test_a_call(said: str) -> None:
    step = parse(said)
    assert (step.tool, json.loads(step.arguments), step.final, step.problem) == ("add", {"a": 1}, None, "")
    assert "sum" in step.thought
    assert "Thought" not in step.thought


ANSWERS = {
    "as asked": "Thought: easy\nFinal Answer: 42",
    "as in the paper": "Thought 2: easy\nAction 2: Finish[42]",
    "with round brackets": 'Thought: easy\nAction: finish("42")',
    "without an action": "Thought: easy\nFinish[42]",
    "in bold": "**Thought:** easy\n**Final Answer:** 42",
    "called answer": "Thought: easy\nAnswer: 42",
    "before a made-up thought": "Thought: easy\nFinal Answer: 42\nThought: and what now?",
    "before a call": "Thought: easy\nFinal Answer: 42\nAction: add[1]",
    "as an action": 'Thought: easy\n{"action": "Final Answer", "action_input": "42"}',
    "as a number": '{"thought": "easy", "final_answer": 42}',
    "as an object's only value": 'Thought: easy\nAction: Finish[{"answer": "42"}]',
}


@pytest.mark.parametrize("said", ANSWERS.values(), ids=ANSWERS)
def test_an_answer(said: str) -> None:
    assert parse(said) == Step(thought="easy", tool=None, arguments="", final="42", problem="")


def test_an_answer_of_several_lines_is_whole() -> None:
    assert parse("Final Answer: two lines\nInput: this is one").final == "two lines\nInput: this is one"


def test_what_reads_like_a_number_is_left_as_it_is() -> None:
    assert parse("Finish[1e3]").final == "1e3"
    assert parse("Finish[007]").final == "007"


SEVERAL = [
    '[{"name": "add", "arguments": {"a": 1}}, {"name": "cut", "arguments": {}}]',
    'Both:\n```json\n{"tool": "add", "arguments": {"a": 1}}\n{"tool": "cut", "arguments": {}}\n```',
    '<tool_call>{"name": "add", "arguments": {"a": 1}}</tool_call><tool_call>{"name": "cut", "arguments": {}}</tool_call>',
]


@pytest.mark.parametrize("said", SEVERAL)
def test_several_calls_at_once(said: str) -> None:
    assert [(step.tool, step.arguments) for step in tool_calls.parse_calls(said)] == [("add", '{"a": 1}'), ("cut", "{}")]
    assert parse(said).tool == "add"


@pytest.mark.parametrize("said", CALLS.values(), ids=CALLS)
def test_one_call_is_one_of_all(said: str) -> None:
    assert [step.tool for step in tool_calls.parse_calls(said)] == ["add"]


@pytest.mark.parametrize("said", ["", "[]", "Final Answer: 42", "tea"])
def test_no_call_is_none_of_all(said: str) -> None:
    assert tool_calls.parse_calls(said) == ()


UNCLEAR = {
    "nothing": "",
    "spaces": " \n\t ",
    "prose": "I think that it is about tea.",
    "a thought alone": "Thought: I should look it up.",
    "an action without a name": "Action:",
    "an action in prose": "Action: look up the price of tea",
    "an empty answer": "Final Answer:",
    "an empty finish": "Action: Finish[]",
    "a tag without an object": "<tool_call>add 1 and 1</tool_call>",
    "an object that is no call": '{"weather": "fine"}',
    "a name without arguments": '{"name": "Ben"}',
    "JSON that ends early": '{"tool": "add", "arguments": {"a": ',
    "an observation alone": "Observation: 42",
}


@pytest.mark.parametrize("said", UNCLEAR.values(), ids=UNCLEAR)
def test_what_is_neither_says_how_to_write(said: str) -> None:
    step = parse(said)
    assert (step.tool, step.final, step.arguments) == (None, None, "")
    assert "Action Input:" in step.problem
    assert "Final Answer:" in step.problem


def test_arguments_that_are_no_json_are_handed_on() -> None:
    assert parse('Action: add\nAction Input: {"a": 1,').arguments == '{"a": 1,'
    assert parse("Action: search[green tea]").arguments == "green tea"
    assert parse("Action: add").arguments == ""


def test_half_a_surrogate_pair_does_not_get_through() -> None:
    step = parse('{"tool": "say\\ud800", "arguments": {"text": "\\udc00"}, "thought": "\\ud800"}')
    assert step.tool is not None
    (step.tool + step.arguments + step.thought).encode()


HOSTILE = {
    "braces": "{" * 1_000_000,
    "objects in objects": '{"a":' * 200_000,
    "tools in tools": '{"tool":' * 300 + '""' + "}" * 300,
    "many tools in tools": '{"tool":' * 900 + '""' + "}" * 900,
    "arguments nested deeply": '{"tool": "add", "arguments":' + "[" * 950 + "]" * 950 + "}",
    "labels": "\nThought:" * 100_000,
    "actions": "Action:" * 100_000,
    "finishes": "Finish[" * 100_000,
    "tags": "<tool_call>" * 100_000,
    "fences": "```" * 100_000,
    "brackets": "Action: add(a=" + "(" * 3_000,
    "minus signs": "Action: add(a=" + "-" * 3_900 + "1)",
    "a long number": "Action: add(a=" + "9" * 3_900 + ")",
    "Python's objects in objects": "{'a':" * 700,
    "lines": "\n > " * 100_000,
    "megabytes": 'Action: add\nAction Input: {"a": "' + "x" * 10_000_000,
    "control characters": "".join(map(chr, range(256))) * 100,
}


@pytest.mark.parametrize("said", HOSTILE.values(), ids=HOSTILE)
def test_hostile_texts_end(said: str) -> None:
    step = parse(said)
    assert bool(step.problem) == (step.tool is None and step.final is None)
    assert len(step.arguments) <= tool_calls.MOST_TEXT


def test_any_mixture_of_marks_is_read() -> None:
    draw = random.Random(0)
    marks = [
        "Thought:",
        "Action:",
        "Action Input:",
        "Final Answer:",
        "Observation:",
        "Finish[",
        "]",
        "{",
        "}",
        '"tool":',
        '"a"',
        "\n",
        "```json\n",
    ]
    marks += ["<tool_call>", "</tool_call>", "<think>", "</think>", "add", "(", ")", ",", "=", "'", ":", " ", "1", "\\", "**"]
    for _ in range(3_000):
        step = parse("".join(draw.choices(marks, k=draw.randrange(40))))
        assert bool(step.problem) == (step.tool is None and step.final is None)
        assert step.tool is None or step.final is None


def test_the_model_is_told_of_each_tool_on_two_lines() -> None:
    tools = Tools.of([tool(expression={"type": "string"}), tool("wéather")])
    lines = tool_calls.describe(tools).splitlines()
    assert lines[0] == "- calculator: Computes exactly."
    assert json.loads(lines[1].partition(":")[2]) == tools.by_name["calculator"].parameters
    assert lines[2].startswith("- wéather")
    assert len(lines) == 4


def test_the_form_that_is_taught_is_understood() -> None:
    told = tool_calls.instructions(Tools.of([tool()]))
    assert "- calculator" in told
    step = parse(told[told.index("Thought:") :])
    assert step.tool is None and step.problem  # `the name of one tool` is no name
    assert parse("Final Answer:" + told.rpartition("Final Answer:")[2]).final == "the answer"
    for stop in tool_calls.STOP:
        assert stop.strip().rstrip(":") in told


def test_without_tools_only_the_answer_is_taught() -> None:
    assert "Action" not in tool_calls.instructions(Tools())


FITTED = [
    ('{"expression": "1"}', {"expression": "1"}),
    ("{'expression': '1'}", {"expression": "1"}),
    ("6 * 7", {"expression": "6 * 7"}),
    ("42", {"expression": "42"}),
    ('"6 * 7"', {"expression": "6 * 7"}),
    ("[1]", {"expression": "[1]"}),
]


@pytest.mark.parametrize(("given", "wanted"), FITTED)
def test_a_bare_text_is_the_one_parameter(given: str, wanted: dict[str, Any]) -> None:
    assert json.loads(tool_calls.fitted(given, tool(expression={"type": "string"}))) == wanted


def test_a_bare_number_is_the_one_parameter() -> None:
    assert json.loads(tool_calls.fitted("42", tool(year={"type": "integer"}))) == {"year": 42}


def test_the_one_that_must_be_given_is_meant() -> None:
    some = Tool(
        name="search",
        description="",
        parameters={"type": "object", "properties": {"query": {"type": "string"}, "k": {"type": "integer"}}, "required": ["query"]},
        call=nothing,
    )
    assert json.loads(tool_calls.fitted("tea", some)) == {"query": "tea"}


@pytest.mark.parametrize("parameters", [{}, {"properties": {"a": True, "b": {}}}, {"properties": []}])
def test_where_no_parameter_is_meant_the_text_is_handed_on(parameters: dict[str, Any]) -> None:
    other = Tool(name="other", description="", parameters=parameters, call=nothing)
    assert tool_calls.fitted("tea", other) == "tea"
    assert tool_calls.fitted(" ", other) == "{}"
    assert tool_calls.fitted('{"a": 1}', other) == '{"a": 1}'
