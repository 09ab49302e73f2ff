"""Strategies asked on scripts: a scripted engine whose calls run in the loop itself, in the order in which they begin."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from foreword.engines.scripted import ScriptedEngine
from foreword.prompting import strategy
from foreword.prompting.strategy import Solved
from foreword.types import Completion, Message, Sampling

QUESTION = (Message(role="user", content="What is 6 times 7?"),)


class InLoop:
    """A model without threads, so that tests know which call comes first. Meets `foreword.prompting.model.Model`."""

    name = "scripted"

    def __init__(self, script: Callable[..., str] | Sequence[str]) -> None:
        """Args: script: says the answer to a conversation, or a list of answers that are given in turn, the last one for ever."""
        self._engine = ScriptedEngine(script if callable(script) else self._next)
        self._said = () if callable(script) else tuple(script)
        self.asked: list[tuple[Message, ...]] = []
        self.samplings: list[Sampling] = []

    async def answer(self, conversation: Sequence[Message], sampling: Sampling) -> Completion:
        """One answer, after giving way to others once."""
        self.asked.append(tuple(conversation))
        self.samplings.append(sampling)
        completion = self._engine.generate([conversation], sampling=sampling)[0]
        await asyncio.sleep(0)
        return completion

    async def close(self) -> None:
        """Nothing was started."""

    def _next(self, conversation: Sequence[Message], sampling: Sampling) -> str:
        return self._said[min(len(self.asked), len(self._said)) - 1]


def solved(text: str, model: Any, conversation: Sequence[Message] = QUESTION, **changes: Any) -> Solved:
    """What a strategy such as `self-consistency(n=5)` comes to. Args: model: a model, a script, or answers in turn."""
    asked = model if hasattr(model, "answer") else InLoop(model)
    return asyncio.run(strategy.solve(strategy.parse(text), conversation, asked, **changes))


def last_words(conversation: Sequence[Message]) -> str:
    """The user's last turn."""
    return conversation[-1].content
