"""A task for a scripted engine: say whether a number is even or odd. How often the script is right depends on the prompt, and is known."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

from foreword.engine import Conversation
from foreword.prompting.template import Template, build
from foreword.types import Example, Message, Sampling

LABELS = ("even", "odd")


def rows(count: int, start: int = 0) -> list[Example]:
    """Numbers and what they are."""
    return [
        Example(messages=(Message(role="user", content=f"number {number}"),), completions=(LABELS[number % 2],), line=number + 1)
        for number in range(start, start + count)
    ]


def prompt(system: str = "Classify the number.", *, user: str = "{{ text }}", name: str = "parity", **fields: Any) -> Template:
    """A prompt for it."""
    messages = [{"role": "system", "content": system}] if system else []
    return build({"name": name, "messages": [*messages, {"role": "user", "content": user}], **fields}, source="test")


def script(percent: Callable[[Conversation], float]) -> Callable[[Conversation, Sampling], str]:
    """Answers that are right for `percent` of the numbers, always the same ones first: a prompt that is better is right on more of them."""

    def answer(conversation: Conversation, sampling: Sampling) -> str:
        number = conversation[-1].content.split()[-1]
        right = LABELS[int(number) % 2]
        luck = int(hashlib.sha256(number.encode()).hexdigest(), 16) % 100
        return right if luck < percent(conversation) else LABELS[1 - int(number) % 2]

    return answer


def by_examples(conversation: Conversation) -> float:
    """30 per cent without examples, and 20 more for each up to three."""
    return 30 + 20 * min(len(shots(conversation)), 3)


def shots(conversation: Conversation) -> Sequence[Message]:
    """The examples' answers."""
    return [message for message in conversation if message.role == "assistant"]
