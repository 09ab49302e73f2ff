"""Asking for reasons before the answer, and finding the answer in them: what several strategies share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from foreword.prompting.final_answer import last_number, marked_answer
from foreword.prompting.template import Shot
from foreword.prompting.turns import question, with_question, with_shots
from foreword.types import Message

THINK = "Think step by step. Then write the result on a last line of its own, as `Answer: ...`."
STATE = "Write the result on a last line of its own, as `Answer: ...`."

Reading = Literal["marked", "number", "last-line"]
"""How the short answer is found: after a mark such as `Answer:`; there or as the last number; there or as the last line."""


def asked_to(conversation: Sequence[Message], instruction: str) -> tuple[Message, ...]:
    """The conversation with an instruction after the question."""
    return with_question(conversation, f"{question(conversation)}\n\n{instruction}") if instruction else tuple(conversation)


def reasoned(conversation: Sequence[Message], shots: Sequence[Shot]) -> tuple[Message, ...]:
    """Asks for reasons: by an instruction, or by worked examples, which show the form themselves."""
    return with_shots(conversation, shots) if shots else asked_to(conversation, THINK)


def short_answer(text: str, reading: Reading) -> str | None:
    """The short answer of a text, or None where it has none that can be recognised."""
    marked = marked_answer(text)
    if reading == "number":
        return last_number(marked or text)
    if marked is None and reading == "last-line":
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        return lines[-1] if lines else None
    return marked
