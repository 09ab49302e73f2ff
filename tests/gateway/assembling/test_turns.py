"""Conversations in their turns."""

from __future__ import annotations

import pytest

from foreword.gateway.assembling.turns import Conversation, instructions, preceded
from foreword.gateway.path_wire import PathMessage


def said(*roles: str) -> tuple[PathMessage, ...]:
    """Messages of these roles, each with its place as its words."""
    return tuple(PathMessage(role=role, content=str(place)) for place, role in enumerate(roles))


CONVERSATIONS = [
    (("user",), (0, 0, 1)),
    (("system", "developer", "user"), (2, 0, 1)),
    (("system", "user", "assistant", "user"), (1, 1, 1)),
    (("user", "assistant", "tool", "assistant", "user", "assistant", "tool"), (0, 1, 3)),
    (("assistant", "user", "assistant", "user"), (0, 2, 1)),
    (("user", "user", "user"), (0, 2, 1)),
    (("user", "system", "assistant", "user"), (0, 1, 1)),
    (("system",), (1, 0, 0)),
    (("assistant", "assistant"), (2, 0, 0)),
    ((), (0, 0, 0)),
]


@pytest.mark.parametrize(("roles", "counts"), CONVERSATIONS)
def test_a_turn_begins_with_the_user(roles: tuple[str, ...], counts: tuple[int, int, int]) -> None:
    talk = Conversation.of(said(*roles))
    assert (len(talk.opening), len(talk.history), len(talk.question)) == counts


@pytest.mark.parametrize(("roles", "_"), CONVERSATIONS)
def test_nothing_is_lost_and_nothing_changes_its_place(roles: tuple[str, ...], _: object) -> None:
    assert Conversation.of(said(*roles)).messages() == said(*roles)


def test_instructions_among_turns_are_found() -> None:
    talk = Conversation.of(said("user", "system", "assistant", "user", "developer", "user"))
    assert [message.text for message in instructions(talk.history)] == ["1", "4"]


def test_a_text_goes_before_the_words_of_a_message() -> None:
    assert preceded(PathMessage(role="user", content="Why?"), "Notes.").content == "Notes.\n\nWhy?"


def test_a_text_goes_before_pictures_too() -> None:
    picture = {"type": "image_url", "image_url": {"url": "data:,"}}
    message = preceded(PathMessage(role="user", content=[picture]), "Notes.")
    assert message.content == [{"type": "text", "text": "Notes.\n\n"}, picture]
