"""The last touch to an answer on its way out: the id that the ledger knows it by, and a whole answer as the stream that was asked for."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from foreword.gateway.streaming import DONE

_ID = re.compile(rb'\A((?:data: ?)?\{\s*"id"\s*:\s*")[^"\\]*"')
_ANY = msgspec.json.Decoder(dict[str, msgspec.Raw])


def with_id(data: bytes, new: str) -> bytes:
    """An answer, or an event of one, under the id that feedback names it by; what is no JSON object is left as it is."""
    found = _ID.match(data)
    if found is not None:
        return b'%b%b"%b' % (found[1], new.encode(), data[found.end() :])
    start = data.find(b"{")
    if start < 0 or data[:start].strip() not in (b"", b"data:"):
        return data
    # Some servers have the id elsewhere, or none.
    try:
        fields = _ANY.decode(data[start:])
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return data
    body = data[start:]
    tail = body[len(body.rstrip()) :]
    return data[:start] + msgspec.json.encode({"id": new, **{name: raw for name, raw in fields.items() if name != "id"}}) + tail


def as_events(body: bytes) -> bytes:
    """A whole answer as the stream that a client asked for: one chunk for each choice and its end, the usage, and `[DONE]`."""
    whole = msgspec.json.decode(body)
    texts = whole.get("object") == "text_completion"
    head = {name: whole.get(name) for name in ("id", "created", "model")}
    head["object"] = "text_completion" if texts else "chat.completion.chunk"
    chunks = []
    for choice in whole.get("choices", []):
        piece = {"text": choice.get("text", "")} if texts else {"delta": _delta(choice.get("message", {}))}
        index, end = choice.get("index", 0), {"text": ""} if texts else {"delta": {}}
        logprobs = {} if choice.get("logprobs") is None else {"logprobs": choice["logprobs"]}
        chunks.append({**head, "choices": [{"index": index, **piece, **logprobs, "finish_reason": None}]})
        chunks.append({**head, "choices": [{"index": index, **end, "finish_reason": choice.get("finish_reason")}]})
    chunks.append({**head, "choices": [], "usage": whole.get("usage")})
    return b"".join(b"data: %b\n\n" % msgspec.json.encode(chunk) for chunk in chunks) + DONE


def _delta(message: dict[str, Any]) -> dict[str, Any]:
    delta = {name: value for name, value in message.items() if value is not None}
    for number, call in enumerate(delta.get("tool_calls", ())):
        call["index"] = number
    return delta
