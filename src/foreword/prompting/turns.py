"""Conversations changed in one place: what strategies put before, around and after the user's words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from foreword.prompting.template import Shot
from foreword.types import Message


def question(conversation: Sequence[Message]) -> str:
    """The user's last turn."""
    return conversation[-1].content


def with_question(conversation: Sequence[Message], text: str) -> tuple[Message, ...]:
    """The conversation with another last turn of the user's."""
    return (*conversation[:-1], replace(conversation[-1], content=text))


def with_system(conversation: Sequence[Message], text: str) -> tuple[Message, ...]:
    """The conversation with `text` as its system message, before what one says already."""
    if not text:
        return tuple(conversation)
    first = conversation[0]
    if first.role == "system":
        return (replace(first, content=f"{text}\n\n{first.content}"), *conversation[1:])
    return (Message(role="system", content=text), *conversation)


def with_shots(conversation: Sequence[Message], shots: Sequence[Shot]) -> tuple[Message, ...]:
    """The conversation with examples as turns of their own before its last turn."""
    turns = [
        message
        for shot in shots
        for message in (Message(role="user", content=shot.user), Message(role="assistant", content=shot.assistant))
    ]
    return (*conversation[:-1], *turns, conversation[-1])


def followed_by(conversation: Sequence[Message], answer: str, reply: str) -> tuple[Message, ...]:
    """The conversation gone on: what the model said, and what the user says to it."""
    return (*conversation, Message(role="assistant", content=answer), Message(role="user", content=reply))
