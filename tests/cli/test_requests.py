"""Rows to be answered, and the bad ones by line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from foreword.cli._requests import Request, read_requests
from foreword.errors import DataError
from foreword.types import Message


def test_the_three_shapes(rows: Any):
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}]
    path = rows("in.jsonl", [{"prompt": "p", "id": 7}, {"text": "t", "label": "x", "system": "own"}, {"messages": turns, "id": "k"}])
    found = read_requests(path, instruction="be brief")
    lead = Message(role="system", content="be brief")
    assert found[0] == Request(line=1, id=7, messages=(lead, Message(role="user", content="p")))
    assert found[1] == Request(line=2, id=None, messages=(Message(role="system", content="own"), Message(role="user", content="t")))
    assert [(turn.role, turn.content) for turn in found[2].messages[1:]] == [("user", "a"), ("assistant", "b"), ("user", "c")]


def test_a_system_turn_of_the_row_stands(rows: Any):
    turns = [{"role": "system", "content": "own"}, {"role": "user", "content": "a"}]
    (found,) = read_requests(rows("in.jsonl", [{"messages": turns}]), instruction="be brief")
    assert found.messages[0].content == "own" and len(found.messages) == 2


def test_an_empty_file_asks_nothing(tmp_path: Path):
    path = tmp_path / "in.jsonl"
    path.write_text("\n\n")
    assert read_requests(path, instruction=None) == ()


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"question": "x"}, "a row needs one of `prompt`, `messages` and `text`; this one has `question`"),
        ({}, "this one has none"),
        ({"prompt": "a", "text": "b"}, "this one has `prompt` and `text`"),
        ({"prompt": 3}, "`prompt` must be a string; got int"),
        ({"prompt": "\ud800"}, "half a surrogate pair at position 0"),
        ({"prompt": "a", "id": 1.5}, "`id` must be a string or a whole number; got float"),
        ({"prompt": "a", "system": ["x"]}, "`system` must be a string; got list"),
        ({"messages": "hello"}, "`messages` must be a list"),
        ({"messages": []}, "`messages` must be a list"),
        ({"messages": ["hello"]}, "`messages[0]` must be an object"),
        ({"messages": [{"role": "owner", "content": "x"}]}, "has the role 'owner'; known roles: system, user, assistant"),
        ({"messages": [{"role": "user"}]}, "the content of `messages[0]` must be a string; got NoneType"),
        ({"messages": [{"role": "assistant", "content": "x"}]}, "must end with the user's turn"),
    ],
)
def test_a_bad_row_is_named_by_its_line(rows: Any, row: dict[str, Any], reason: str):
    path = rows("in.jsonl", [{"prompt": "fine"}, row])
    with pytest.raises(DataError) as error:
        read_requests(path, instruction=None)
    assert "1 of 2 rows cannot be answered" in str(error.value)
    (line,) = (line for line in str(error.value).splitlines() if line.startswith("  line 2: "))
    assert reason in line


def test_many_bad_rows_are_counted(tmp_path: Path):
    path = tmp_path / "in.jsonl"
    path.write_text("nonsense\n" * 14)
    with pytest.raises(DataError, match=r"14 of 14 rows(.|\n)*line 10: invalid JSON(.|\n)*and 4 more"):
        read_requests(path, instruction=None)
