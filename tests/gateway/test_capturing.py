"""What of a passage is captured."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

from foreword.cost.ledger import Line
from foreword.gateway.capturing import capture_of
from foreword.gateway.passage import Reply
from foreword.store.database import open_database
from foreword.telemetry.capture import Captured, read
from walking import close, parts_of, passage_of, settings_of


def captured(tmp_path: Path, body: Any, reply: Reply | None, lines: list[Line]) -> Captured:
    async def main() -> None:
        settings = settings_of({"default": {"capture_share": 1}}, store={"capture": str(tmp_path / "c.sqlite")})
        parts = parts_of(settings)
        take = capture_of(parts)
        assert take is not None
        passage = passage_of(settings, body)
        passage.reply, passage.lines = reply, lines
        await take(passage)
        await close(parts)

    asyncio.run(main())
    database = open_database(tmp_path / "c.sqlite")
    [found] = read(database)
    database.close()
    return found


def test_calls_of_tools_and_what_was_billed_for_the_answer(tmp_path: Path) -> None:
    call = {"id": "1", "type": "function", "function": {"name": "refund", "arguments": "{}"}}
    body = json.dumps({"choices": [{"message": {"content": None, "tool_calls": [call]}}]}).encode()
    reply = Reply(model="big", body=body, text="", finish_reason="tool_calls", consumed=None, tool_calls=True)
    lines = [
        Line(stage="infer", model="big", charges=None, consumed=(("input", 10.0), ("output", 2.0))),
        Line(stage="infer", model="big", charges=None, consumed=(("input", 5.0),)),
        Line(stage="assemble", model="big", charges=None, consumed=(("input", 99.0),)),
    ]
    found = captured(tmp_path, "refund me", reply, lines)
    assert found.called == ["refund"]
    assert (found.input_tokens, found.output_tokens) == (15, 2)


def test_pictures_are_not_captured_but_their_beginning(tmp_path: Path) -> None:
    url = "data:image/png;base64," + "A" * 5_000
    content = [{"type": "text", "text": "What is it?"}, {"type": "image_url", "image_url": {"url": url}}]
    found = captured(tmp_path, {"messages": [{"role": "user", "content": content}]}, None, [])
    assert found.messages[0]["content"][0] == {"type": "text", "text": "What is it?"}
    assert found.messages[0]["content"][1]["type"] == "image_url" and len(json.dumps(found.messages)) < 500
    assert found.input_tokens is None and found.answer == ""
