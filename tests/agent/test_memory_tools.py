"""`remember` and `recall` as a model calls them."""

from __future__ import annotations

from pathlib import Path

import pytest

from agents import done
from foreword.agent.facts import Provenance
from foreword.agent.long_memory import LongMemory
from foreword.agent.memory_tools import memory_tools
from foreword.prompting.tool import Tools


@pytest.fixture
def memory(tmp_path: Path) -> LongMemory:
    return LongMemory(tmp_path / "memory.sqlite")


def tools(memory: LongMemory) -> Tools:
    return Tools.of(memory_tools(memory, lambda: Provenance(run="r", span=2, source="tool:sql")))


def test_writes_down_and_looks_up(memory: LongMemory):
    written = done(tools(memory).call("remember", '{"fact": "Tea costs 3.", "importance": 1}'))
    assert written.ok and memory.facts()[0].provenance == Provenance(run="r", span=2, source="tool:sql")
    assert done(tools(memory).call("recall", '{"question": "What costs tea?"}')).text == "- Tea costs 3. (from tool:sql)"
    assert done(tools(memory).call("recall", '{"question": "Who is the queen?"}')).text == "Nothing is remembered about that."


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("remember", "{}"),
        ("remember", '{"fact": 7}'),
        ("remember", '{"fact": "x", "importance": true}'),
        ("remember", '{"fact": "x", "importance": 9}'),
        ("remember", '{"fact": " "}'),
        ("recall", "{}"),
        ("recall", '{"question": ""}'),
    ],
)
def test_bad_arguments_are_told(memory: LongMemory, name: str, arguments: str):
    observation = done(tools(memory).call(name, arguments))
    assert not observation.ok and "failed" not in observation.text
    assert memory.facts() == []
