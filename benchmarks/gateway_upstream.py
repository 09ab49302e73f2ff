"""A model's server that takes next to no time itself: what every gateway of the benchmark forwards to.

python -m benchmarks.gateway_upstream    prints `listening PORT`

Answers differ from request to request, as a model's do; a request with `"stream": true` is answered in `CHUNKS` pieces at an even pace.
`GET /count` says how many requests for an answer have come, so that it shows what a gateway has answered from its cache.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
import zlib

CHUNKS = 20
PACE_SECONDS = 0.005
WORDS = 40
"""Of a whole answer."""
_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
_STREAMS = re.compile(rb'"stream": ?true')
_END = b"\r\n\r\n"
_TEXT = """
account amount answer area article base border bridge branch change chapter city class coast colour column copper country course
degree desert detail distance doctor edge effect engine evening farm field figure film forest frame garden glass harbour heat
history holiday house island journey kitchen lake language law letter library light line list machine market measure metal method
minute mirror moment month morning motion mountain museum music night north number object ocean office order page paper part
pattern phrase place plan plant point port price problem process product purpose quarter question radio rain range reason record
result river road room rule salt sample school science season sense series shape ship side signal silver snow song sound source
south space speed spring square stage station stone story street study summer surface system table task team term text theory
thread tower town trade train tree valley value voice wall water wave week west wind window winter wood word work year
"""
_VOCABULARY = _TEXT.split()


class Answers:
    """Answers made beforehand, and how many were asked for."""

    def __init__(self, kinds: int = 1024) -> None:
        self.count = 0
        self._whole = [_whole(number) for number in range(kinds)]
        self._pieces = [_pieces(number) for number in range(64)]

    def whole(self, body: bytes) -> bytes:
        """The answer to a request, HTTP head included."""
        self.count += 1
        return self._whole[zlib.crc32(body) % len(self._whole)]

    def pieces(self, body: bytes) -> list[bytes]:
        """What is sent one after the other."""
        self.count += 1
        return self._pieces[zlib.crc32(body) % len(self._pieces)]


class _Connection(asyncio.Protocol):
    def __init__(self, answers: Answers) -> None:
        self._answers = answers
        self._held = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport), "a TCP server's"
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._held += data
        while (end := self._held.find(_END)) >= 0:
            length = _LENGTH.search(self._held, 0, end)
            whole = end + len(_END) + (int(length[1]) if length else 0)
            if len(self._held) < whole:
                return
            head, body, self._held = self._held[:end], self._held[end + len(_END) : whole], self._held[whole:]
            self._answer(head, body)

    def _answer(self, head: bytes, body: bytes) -> None:
        assert self._transport is not None, "data comes over a connection"
        if head.startswith(b"GET"):
            self._transport.write(_response(json.dumps({"count": self._answers.count}).encode()))
        elif _STREAMS.search(body):
            loop = asyncio.get_running_loop()
            began = loop.time()
            for number, piece in enumerate(self._answers.pieces(body)):
                loop.call_at(began + number * PACE_SECONDS, self._send, piece)
        else:
            self._transport.write(self._answers.whole(body))

    def _send(self, piece: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(piece)


def _words(number: int, count: int) -> list[str]:
    """A different text for each number, whose words do not follow from the number's neighbours."""
    return [_VOCABULARY[zlib.crc32(b"%d %d" % (number, place)) % len(_VOCABULARY)] for place in range(count)]


def _whole(number: int) -> bytes:
    words = _words(number, WORDS)
    choice = {"index": 0, "message": {"role": "assistant", "content": " ".join(words)}, "finish_reason": "stop", "logprobs": None}
    return _response(json.dumps({**_head(number, "chat.completion"), "choices": [choice], "usage": _usage(WORDS)}).encode())


def _pieces(number: int) -> list[bytes]:
    head = _head(number, "chat.completion.chunk")
    found = []
    for place, word in enumerate(_words(number, CHUNKS)):
        delta = {"role": "assistant", "content": word} if place == 0 else {"content": f" {word}"}
        finish = "stop" if place == CHUNKS - 1 else None
        found.append(_event({**head, "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}))
    found[0] = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n" + found[0]
    usage = _event({**head, "choices": [], "usage": _usage(CHUNKS)})
    found[-1] += usage + _chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n"
    return found


def _head(number: int, kind: str) -> dict[str, object]:
    return {"id": f"chatcmpl-{number:024d}", "object": kind, "created": 1_700_000_000, "model": "mock-1"}


def _usage(tokens: int) -> dict[str, int]:
    return {"prompt_tokens": 120, "completion_tokens": tokens, "total_tokens": 120 + tokens}


def _event(content: object) -> bytes:
    return _chunk(b"data: %b\n\n" % json.dumps(content).encode())


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def _response(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)


async def main() -> None:
    """Serves until it is terminated."""
    answers = Answers()
    server = await asyncio.get_running_loop().create_server(lambda: _Connection(answers), "127.0.0.1", 0, backlog=1024)
    sys.stdout.write(f"listening {server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
