"""Answers under the ledger's id, and whole ones as streams."""

from __future__ import annotations

import json
from typing import Any

import pytest

from foreword.gateway.shaping import as_events, with_id


@pytest.mark.parametrize(
    "given",
    [
        '{"id":"chatcmpl-1","model":"m"}',
        '{"id": "chatcmpl-1", "model": "m"}',
        '{ "id" : "chatcmpl-1" , "model" : "m" }',
        '{\n  "id": "chatcmpl-1",\n  "model": "m"\n}\n',
        '{"id":"","model":"m"}',
        '{"id":"a\\"b","model":"m"}',
        '{"id":null,"model":"m"}',
        '{"id":7,"model":"m"}',
        '{"model":"m","id":"chatcmpl-1"}',
        '{"model":"m"}',
        '{"model":"m","choices":[{"id":"not mine"}]}',
    ],
)
@pytest.mark.parametrize(("before", "behind"), [("", ""), ("data: ", "\n\n"), ("data:", "\n\n")])
def test_an_answer_is_told_under_its_id_however_it_is_written(given: str, before: str, behind: str) -> None:
    made = with_id(f"{before}{given}{behind}".encode(), "chatcmpl-new").decode()
    assert made.startswith(before) and made.endswith(behind)
    body = json.loads(made.removeprefix("data:"))
    assert body == {**json.loads(given), "id": "chatcmpl-new"}


@pytest.mark.parametrize(
    "given", [b"", b": keep-alive\n\n", b"data: [DONE]\n\n", b"data: {broken\n\n", b"[{}]", b'{"a": \xff}', b"text {}"]
)
def test_what_is_no_answer_is_left_as_it_is(given: bytes) -> None:
    assert with_id(given, "chatcmpl-new") == given


def test_numbers_and_nested_things_stay_as_they_were_written() -> None:
    given = b'{"x": 0.10, "y": 12345678901234567890, "z": {"id": "inner", "a": [1e2]}, "id": "old"}'
    made = with_id(given, "new")
    assert b"0.10" in made and b"12345678901234567890" in made and b'{"id": "inner", "a": [1e2]}' in made


def chunks_of(events: bytes) -> list[dict[str, Any]]:
    *written, done, end = events.decode().split("\n\n")
    assert (done, end) == ("data: [DONE]", "")
    return [json.loads(one.removeprefix("data: ")) for one in written]


def test_a_whole_answer_becomes_the_stream_that_was_asked_for() -> None:
    calls = [{"id": name, "type": "function", "function": {"name": name, "arguments": "{}"}} for name in ("a", "b")]
    body = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 7,
        "model": "m",
        "choices": [
            {"index": 0, "message": {"role": "assistant", "content": "Hi.", "refusal": None}, "logprobs": None, "finish_reason": "stop"},
            {"index": 1, "message": {"role": "assistant", "content": None, "tool_calls": calls}, "finish_reason": "tool_calls"},
        ],
        "usage": {"total_tokens": 3},
    }
    chunks = chunks_of(as_events(json.dumps(body).encode()))
    assert {(chunk["id"], chunk["object"], chunk["created"], chunk["model"]) for chunk in chunks} == {
        ("chatcmpl-1", "chat.completion.chunk", 7, "m")
    }
    choices = [chunk["choices"][0] for chunk in chunks[:-1]]
    assert [(one["index"], one["finish_reason"]) for one in choices] == [(0, None), (0, "stop"), (1, None), (1, "tool_calls")]
    assert choices[0]["delta"] == {"role": "assistant", "content": "Hi."}
    assert [call["index"] for call in choices[2]["delta"]["tool_calls"]] == [0, 1]
    assert chunks[-1]["choices"] == [] and chunks[-1]["usage"] == {"total_tokens": 3}


def test_a_text_becomes_a_stream_of_texts() -> None:
    body = {"id": "cmpl-1", "object": "text_completion", "choices": [{"index": 0, "text": "on.", "finish_reason": "length"}]}
    first, last, _ = chunks_of(as_events(json.dumps(body).encode()))
    assert first["object"] == "text_completion" and first["choices"][0]["text"] == "on." and last["choices"][0]["finish_reason"] == "length"
