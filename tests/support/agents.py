"""Models whose every answer is known, and tools made on the spot, for agents to work with."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from foreword.engines.scripted import ScriptedEngine
from foreword.prompting.model import GeneratedModel
from foreword.prompting.tool import Tool
from foreword.types import Message, Sampling

Answer = str | Callable[[Sequence[Message]], str]


class Says(GeneratedModel):
    """`Says("a", "b")`: says `a`, then `b`, then `b` for ever; a function is asked what to say. `prompts` are those that it was given."""

    def __init__(self, *answers: Answer, name: str = "scripted") -> None:
        self.prompts: list[tuple[Message, ...]] = []

        def script(conversation: Sequence[Message], sampling: Sampling) -> str:
            answer = answers[min(len(self.prompts), len(answers) - 1)]
            self.prompts.append(tuple(conversation))
            return answer if isinstance(answer, str) else answer(conversation)

        super().__init__(ScriptedEngine(script, name=name), at_once=1)


def call(tool: str, arguments: str = "{}", thought: str = "Let me see.") -> str:
    """A call as a model writes it."""
    return f"Thought: {thought}\nAction: {tool}\nAction Input: {arguments}"


def final(answer: str) -> str:
    """A final answer as a model writes it."""
    return f"Thought: I know it.\nFinal Answer: {answer}"


def a_tool(name: str, function: Callable[[Any], Any], **fields: Any) -> Tool:
    """A tool that takes any arguments; the function may be async."""

    async def run(arguments: Any) -> str:
        result = function(arguments)
        return await result if asyncio.iscoroutine(result) else result

    return Tool(name=name, description=f"Does {name}.", parameters={"type": "object"}, call=run, **fields)


def done(work: Coroutine[Any, Any, Any]) -> Any:
    """What a coroutine comes to."""
    return asyncio.run(work)
