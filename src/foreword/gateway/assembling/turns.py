"""A conversation in its turns: what opens it, what was said, and the question.

A turn begins with the user and goes on until the user speaks again, so that a call of a tool and its result are never parted.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from foreword.gateway.path_wire import PathMessage

Turn = tuple[PathMessage, ...]
INSTRUCTING = frozenset({"system", "developer"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversation:
    """A conversation.

    Attributes:
        opening: instructions before anybody speaks.
        history: what was said before the question, oldest first.
        question: the user's last turn, with calls of tools that were made for it; empty where the user said nothing.
    """

    opening: Turn
    history: tuple[Turn, ...]
    question: Turn

    @classmethod
    def of(cls, messages: Sequence[PathMessage]) -> Conversation:
        """The conversation of these messages."""
        start = next((place for place, message in enumerate(messages) if message.role not in INSTRUCTING), len(messages))
        begins = [place for place in range(start, len(messages)) if messages[place].role == "user"]
        if not begins:
            return cls(opening=tuple(messages), history=(), question=())
        # What an assistant says before the user does is a turn too.
        edges = sorted({start, *begins, len(messages)})
        turns = tuple(tuple(messages[begin:end]) for begin, end in itertools.pairwise(edges))
        return cls(opening=tuple(messages[:start]), history=turns[:-1], question=turns[-1])

    def messages(self) -> tuple[PathMessage, ...]:
        """All of it, in order."""
        return (*self.opening, *(message for turn in self.history for message in turn), *self.question)


def instructions(turns: Sequence[Turn]) -> Turn:
    """What of turns is instruction, and stays when they go."""
    return tuple(message for turn in turns for message in turn if message.role in INSTRUCTING)


def preceded(message: PathMessage, text: str) -> PathMessage:
    """The message with a text before its own words.

    It goes into the user's own message, not into one of the system: what users and documents say must not speak with its authority, and
    many chat templates want roles to take turns.
    """
    if isinstance(message.content, list):
        content: Any = [{"type": "text", "text": f"{text}\n\n"}, *message.content]
    else:
        content = f"{text}\n\n{message.text}"
    return msgspec.structs.replace(message, content=content)
