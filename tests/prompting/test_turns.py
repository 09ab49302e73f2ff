"""Conversations changed in one place."""

from __future__ import annotations

from foreword.prompting.template import Shot
from foreword.prompting.turns import followed_by, question, with_question, with_shots, with_system
from foreword.types import Message

SYSTEM = Message(role="system", content="Be brief.")
USER = Message(role="user", content="Why?")


def test_question_is_the_last_turn() -> None:
    assert question((SYSTEM, USER)) == "Why?"
    assert with_question((SYSTEM, USER), "How?") == (SYSTEM, Message(role="user", content="How?"))


def test_system_message_comes_before_the_one_there_is() -> None:
    assert with_system((USER,), "Be kind.") == (Message(role="system", content="Be kind."), USER)
    assert with_system((SYSTEM, USER), "Be kind.")[0].content == "Be kind.\n\nBe brief."
    assert with_system((SYSTEM, USER), "") == (SYSTEM, USER)


def test_shots_stand_right_before_the_question() -> None:
    turns = with_shots((SYSTEM, USER), [Shot(user="a", assistant="b"), Shot(user="c", assistant="d")])
    assert [(turn.role, turn.content) for turn in turns] == [
        ("system", "Be brief."),
        ("user", "a"),
        ("assistant", "b"),
        ("user", "c"),
        ("assistant", "d"),
        ("user", "Why?"),
    ]


def test_going_on() -> None:
    assert followed_by((USER,), "Because.", "Go on.")[1:] == (
        Message(role="assistant", content="Because."),
        Message(role="user", content="Go on."),
    )
