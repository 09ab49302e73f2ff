"""Long-term memory in the hands of a model: a tool to write facts down and one to look them up."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from foreword.agent.facts import Fact, Provenance, Recalled
from foreword.errors import AgentError, ToolError
from foreword.prompting.tool import Tool

IMPORTANCE = 0.5
MOST_RECALLED = 5


class Memory(Protocol):
    """What an agent needs of a long-term memory; `LongMemory` is one."""

    def remember(self, text: str, *, importance: float = ..., provenance: Provenance | None = None) -> Fact:
        """Writes a fact down."""
        ...

    def recall(self, question: str, *, most: int = ...) -> list[Recalled]:
        """The facts that fit a question best."""
        ...


def memory_tools(memory: Memory, provenance: Callable[[], Provenance]) -> tuple[Tool, Tool]:
    """`remember` and `recall`. Args: provenance: where a fact that is written down now comes from."""

    async def remember(arguments: Mapping[str, Any]) -> str:
        text, importance = arguments.get("fact"), arguments.get("importance", IMPORTANCE)
        if not isinstance(text, str) or isinstance(importance, bool) or not isinstance(importance, int | float):
            raise ToolError('`remember` takes {"fact": "a sentence", "importance": a number from 0 to 1}.')
        try:
            fact = await asyncio.to_thread(memory.remember, text, importance=float(importance), provenance=provenance())
        except AgentError as error:
            raise ToolError(str(error)) from None
        return f"Remembered as fact {fact.id}."

    async def recall(arguments: Mapping[str, Any]) -> str:
        question = arguments.get("question")
        if not isinstance(question, str) or not question.strip():
            raise ToolError('`recall` takes {"question": "what you want to know"}.')
        found = await asyncio.to_thread(memory.recall, question, most=MOST_RECALLED)
        return "\n".join(told(item) for item in found) or "Nothing is remembered about that."

    text = {"type": "string"}
    return (
        Tool(
            name="remember",
            description="Writes one fact down for later, in a whole sentence that can be understood on its own.",
            parameters={
                "type": "object",
                "properties": {"fact": text, "importance": {"type": "number", "minimum": 0, "maximum": 1}},
                "required": ["fact"],
            },
            call=remember,
        ),
        Tool(
            name="recall",
            description="Looks up what was written down before, in this work and in earlier ones.",
            parameters={"type": "object", "properties": {"question": text}, "required": ["question"]},
            call=recall,
        ),
    )


def told(item: Recalled) -> str:
    """A recalled fact as a model reads it, with what it came from."""
    return f"- {item.fact.text} (from {item.fact.provenance.source})"
