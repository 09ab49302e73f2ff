"""Calls against those that are accepted."""

from __future__ import annotations

import json
from typing import Any

import pytest

from foreword.errors import EvaluationError
from foreword.evaluate.scorer import Outcome
from foreword.evaluate.scorers.tool_call import score

WANTED = [{"geometry.area": {"base": [10, 10.0], "unit": ["cm²", "square centimetres", ""], "exact": [True, ""]}}]


def outcome(answer: str, *references: str) -> Outcome:
    return Outcome(answers=(answer,), references=(references,), prompts=("",))


def right(answer: str, wanted: Any = WANTED) -> bool:
    return score(outcome(answer, json.dumps(wanted))).value == 1.0


def written(**arguments: Any) -> str:
    return json.dumps([{"name": "geometry.area", "arguments": arguments}])


@pytest.mark.parametrize(
    "answer",
    [
        written(base=10),
        written(base=10.0, unit="Square-Centimetres"),
        written(base=10, exact=True),
        '{"name": "geometry_area", "arguments": {"base": 10}}',
        'Thought: area\nAction: geometry.area\nAction Input: {"base": 10}',
        "Action: geometry.area(base=10)",
        '<tool_call>{"name": "geometry.area", "arguments": {"base": 10}}</tool_call>',
    ],
)
def test_a_call_that_is_accepted(answer: str) -> None:
    assert right(answer)


@pytest.mark.parametrize(
    "answer",
    [
        written(),
        written(base=11),
        written(base="10"),
        written(base=True),
        written(base=[10]),
        written(base=10, height=5),
        written(base=10, unit="inch"),
        written(base=10, exact=1),
        written(base=10).replace("area", "volume"),
        json.dumps(json.loads(written(base=10)) * 2),
        "[]",
        "",
        "The area is 10.",
        "Action: geometry.area\nAction Input: base is 10",
        "[" * 10_000,
    ],
)
def test_a_call_that_is_not(answer: str) -> None:
    assert not right(answer)


@pytest.mark.parametrize("answer", ["[]", "None of them fits.", "Final Answer: I cannot.", ""])
def test_no_call_is_right_where_none_is_wanted(answer: str) -> None:
    assert right(answer, [])
    assert not right(written(base=1), [])


def test_several_calls_are_right_in_any_order() -> None:
    wanted = [{"add": {"a": [1]}}, {"add": {"a": [2]}}, {"cut": {"b": ["x"]}}]
    calls = [{"name": "cut", "arguments": {"b": "X"}}, {"name": "add", "arguments": {"a": 2}}, {"name": "add", "arguments": {"a": 1}}]
    assert right(json.dumps(calls), wanted)
    assert right("\n".join(f"<tool_call>{json.dumps(call)}</tool_call>" for call in calls), wanted)
    assert not right(json.dumps(calls[:2]), wanted)
    assert not right(json.dumps([*calls[:2], calls[1]]), wanted)


@pytest.mark.parametrize(
    ("value", "accepted", "is_right"),
    [
        ([1, 2], [[1, 2]], True),
        ([2, 1], [[1, 2]], False),
        ([1], [[1, 2]], False),
        (["New York"], [["new york"]], True),
        ({"city": "Bern"}, [{"city": ["Bern", "Berne"], "zip": ["", 3000]}], True),
        ({"zip": 3000}, [{"city": ["Bern"], "zip": [3000]}], False),
        ("Bern", [{"city": ["Bern"]}], False),
        ([{"a": 1}], [[{"a": [1]}]], True),
        (None, [None], True),
        ("it's", ['it"s'], True),
    ],
)
def test_values_within_values(value: Any, accepted: list[Any], is_right: bool) -> None:
    answer = json.dumps({"name": "f", "arguments": {"x": value}})
    assert right(answer, [{"f": {"x": accepted}}]) is is_right


def test_one_of_several_references_will_do() -> None:
    assert score(outcome(written(base=10), "[]", json.dumps(WANTED))).value == 1.0


@pytest.mark.parametrize("reference", ["", "tea", "3", '["add"]', '[{"add": 3}]'])
def test_a_reference_that_is_none_is_refused(reference: str) -> None:
    with pytest.raises(EvaluationError, match="`tool-call` needs references"):
        score(outcome(json.dumps({"name": "add", "arguments": {"a": 1}}), reference))
