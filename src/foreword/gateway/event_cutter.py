"""Cuts the bytes of a stream of server-sent events into what its events say, however the network has cut them.

WHATWG HTML, section 9.2.6, without what no model's server sends: other fields than `data`, and lone carriage returns.
"""

from __future__ import annotations

_END = b"\n\n"


class EventCutter:
    """For one stream."""

    def __init__(self) -> None:
        self._rest = b""

    @property
    def held(self) -> int:
        """Bytes of an event whose end has not come."""
        return len(self._rest)

    def cut(self, piece: bytes) -> list[bytes]:
        """The data of the events that end in this piece; of a comment, nothing (`b""`). An empty piece is the end of the stream."""
        rest = self._rest + piece
        if b"\r" in rest:
            # A CR may come without its LF, which is then in the next piece.
            rest = rest.replace(b"\r\n", b"\n")
        # Some servers end without the blank line.
        *whole, self._rest = rest.split(_END) if piece else (rest, b"")
        return [_data(event) for event in whole if event]


def _data(event: bytes) -> bytes:
    """What an event says; of several lines, one, as the only line ends in JSON are between its tokens."""
    if event.startswith(b"data:") and b"\n" not in event:
        return event[5:].strip()
    return b" ".join(line[5:].strip() for line in event.split(b"\n") if line.startswith(b"data:"))
