"""Events are what they are, however the network cuts them."""

from __future__ import annotations

import pytest

from foreword.gateway.event_cutter import EventCutter

STREAM = b': keep-alive\r\n\r\ndata: {"a": 1}\r\n\r\nevent: x\r\nid: 7\r\ndata: {"b":\r\ndata:  2}\r\n\r\ndata:[DONE]\r\n\r\n'
SAID = [b"", b'{"a": 1}', b'{"b": 2}', b"[DONE]"]


@pytest.mark.parametrize("newline", [b"\r\n", b"\n"])
@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 1000])
def test_pieces_of_any_size_make_the_same_events(newline: bytes, size: int) -> None:
    cutter, stream = EventCutter(), STREAM.replace(b"\r\n", newline)
    said = [data for start in range(0, len(stream), size) for data in cutter.cut(stream[start : start + size])]
    assert said == SAID
    assert cutter.held == 0


def test_the_end_of_the_stream_ends_its_last_event() -> None:
    cutter = EventCutter()
    assert cutter.cut(b"data: last") == []
    assert cutter.held == 10
    assert cutter.cut(b"") == [b"last"]
    assert cutter.cut(b"") == []
