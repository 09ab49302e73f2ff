"""The benchmark of tool calls, on the shared rows and without a model that computes."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from benchmarks import tool_use

from foreword.engines.scripted import ScriptedEngine
from foreword.prompting import model


@pytest.mark.parametrize("name", tool_use.SETS)
def test_a_model_that_knows_the_call_is_right_on_every_row(shared_data: Path, name: str) -> None:
    rows = tool_use.rows(shared_data, name, 25)
    judged = [asyncio.run(tool_use._scripted(number, row)) for number, row in enumerate(rows)]
    assert [number for number, one in enumerate(judged) if not (one.right and one.read)] == []


def test_a_model_that_says_something_else_is_not(shared_data: Path) -> None:
    first, second = tool_use.rows(shared_data, "simple_python", 2)

    async def run(text: str) -> tool_use.Judged:
        asked = model.of(ScriptedEngine(lambda conversation, sampling: text))
        try:
            return await tool_use.judged(first, asked)
        finally:
            await asked.close()

    assert asyncio.run(run(tool_use.spoken(0, second.wanted))) == tool_use.Judged(right=False, read=True)
    assert asyncio.run(run("The area is 25.")) == tool_use.Judged(right=False, read=False)
    assert asyncio.run(run("Final Answer: 25")) == tool_use.Judged(right=False, read=True)


def test_schemas_get_the_names_that_json_has() -> None:
    given = {"type": "dict", "properties": {"type": {"type": "float"}, "x": {"type": "tuple", "items": {"type": "any"}}}}
    assert tool_use._schema(given) == {
        "type": "object",
        "properties": {"type": {"type": "number"}, "x": {"type": "array", "items": {}}},
    }
