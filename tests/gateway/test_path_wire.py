"""Requests and answers, as far as the path reads them."""

from __future__ import annotations

import msgspec
import pytest

from foreword.gateway.path_wire import CHUNK, REPLY, REQUEST, PathMessage


def test_a_request_goes_on_as_it_came() -> None:
    raw = (
        b'{"model":"auto","messages":[{"role":"developer","content":"Be kind."},{"role":"user","content":[{"type":"text","text":"Hi"},'
        b'{"type":"image_url","image_url":{"url":"data:,"}}],"name":"anna"},{"role":"assistant","content":null,"tool_calls":[{"id":"c",'
        b'"type":"function","function":{"name":"f","arguments":"{}"}}]},{"role":"tool","content":"7","tool_call_id":"c"}],"temperature":0.0,'
        b'"seed":7,"logit_bias":{"5":-1.0},"response_format":{"type":"json_object"},"reasoning_effort":"low","guided_choice":["a","b"]}'
    )
    assert msgspec.json.decode(msgspec.json.encode(REQUEST.decode(raw))) == msgspec.json.decode(raw)


def test_what_is_not_said_is_not_sent() -> None:
    assert msgspec.json.encode(REQUEST.decode(b'{"model": "m", "messages": []}')) == b'{"model":"m"}'


@pytest.mark.parametrize(
    ("fields", "limit"),
    [(b"", None), (b',"max_tokens":5', 5), (b',"max_completion_tokens":6', 6), (b',"max_tokens":null', None)],
)
def test_the_length_of_an_answer_is_what_either_field_says(fields: bytes, limit: int | None) -> None:
    assert REQUEST.decode(b'{"model":"m"' + fields + b"}").output_limit() == limit


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("Hi.", "Hi."),
        ([{"type": "text", "text": "a"}, {"type": "image_url"}, {"type": "text", "text": "b"}], "ab"),
        ([{"type": "text"}], ""),
        ([], ""),
        (None, ""),
        (msgspec.UNSET, ""),
    ],
)
def test_the_words_of_a_turn(content: object, text: str) -> None:
    assert PathMessage(role="user", content=content).text == text  # type: ignore[arg-type]


def test_of_answers_no_more_is_read_than_is_needed() -> None:
    body = REPLY.decode(
        b'{"choices":[{"message":{"content":"a","strange":1},"finish_reason":"stop"},{"text":"b"}],"usage":{"prompt_tokens":3},"x":[{}]}'
    )
    assert (body.choices[0].message.content, body.choices[1].text) == ("a", "b")
    assert body.usage is not None and (body.usage.prompt_tokens, body.usage.completion_tokens) == (3, 0)
    chunk = CHUNK.decode(b'{"choices":[{"delta":{"content":"a"},"index":0},{"text":"b","index":1}],"usage":null}')
    assert (chunk.choices[0].delta.content, chunk.choices[1].text, chunk.usage) == ("a", "b", None)
    assert CHUNK.decode(b"{}").choices == []
