"""Estimates of tokens."""

from __future__ import annotations

from foreword.gateway.assembling.budget import IMAGE_TOKENS, json_tokens, message_tokens, text_tokens
from foreword.gateway.estimate import prompt_tokens
from foreword.gateway.path_wire import PathMessage, PathRequest


def test_a_token_is_four_bytes() -> None:
    assert [text_tokens(text) for text in ("", "a", "four", "fives", "für", "日本語日")] == [0, 1, 1, 2, 1, 3]


def test_half_of_a_character_is_counted_too() -> None:
    assert text_tokens("\ud83d") == 1


def test_pictures_and_calls_count() -> None:
    picture = PathMessage(role="user", content=[{"type": "image_url", "image_url": {"url": "data:," + "x" * 9_000}}])
    assert IMAGE_TOKENS <= message_tokens([picture]) < 2 * IMAGE_TOKENS
    calls = [{"id": "1", "type": "function", "function": {"name": "find", "arguments": "{}"}}]
    assert message_tokens([PathMessage(role="assistant", tool_calls=calls)]) > json_tokens(calls)


def test_it_agrees_with_what_a_broken_off_answer_is_priced_by() -> None:
    messages = (PathMessage(role="system", content="Be brief."), PathMessage(role="user", content="Where is my parcel?"))
    assert abs(message_tokens(messages) - prompt_tokens(PathRequest(model="m", messages=messages))) <= len(messages)
