"""A model that judges whether a goal is met."""

from __future__ import annotations

from typing import Any

import pytest

from agents import done
from foreword.agent.checking import judge
from foreword.types import Completion, Message, Usage


@pytest.mark.parametrize(
    ("said", "score", "reason"),
    [
        ("Yes", 1.0, ""),
        ("**Yes.** It does.", 1.0, ""),
        ("No, the price is missing.", 0.0, "the price is missing"),
        ("no", 0.0, "It does not meet the goal."),
        ("Perhaps.", 1.0, "neither"),
        ("", 1.0, "neither"),
    ],
)
def test_yes_no_and_neither(said: str, score: float, reason: str):
    asked: list[str] = []

    async def ask(conversation: Any, **changes: Any) -> Completion:
        asked.append(conversation[-1].content)
        return Completion(text=said, token_ids=(), usage=Usage(prompt_tokens=1, completion_tokens=1), finish_reason="stop", seconds=0.0)

    verdict = done(judge((Message(role="user", content="Goal: the price."),), "3", ask))
    assert verdict.score == score and reason in verdict.reason
    assert "Goal: the price." in asked[0] and "\n3\n" in asked[0]
