"""The hash of a conversation's leading messages, by which a prefix that holds them is found. Reaches no torch.

It is the sha256 of their canonical JSON in UTF-8: a list of objects with the keys `content` and `role`, in this order, without blanks,
nothing escaped that need not be.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Sequence

from foreword.types import Message


def messages_hash(messages: Sequence[Message]) -> str:
    """The hash of these messages, in hex."""
    return leading_hashes(messages, {len(messages)})[len(messages)]


def leading_hashes(messages: Sequence[Message], counts: Collection[int]) -> dict[int, str]:
    """The hashes of the first messages, for each of `counts` that there are so many of. Each message is read once."""
    wanted = {count for count in counts if 0 < count <= len(messages)}
    running = hashlib.sha256(b"[")
    hashes = {}
    for count, message in enumerate(messages[: max(wanted, default=0)], start=1):
        text = json.dumps({"content": message.content, "role": message.role}, ensure_ascii=False, separators=(",", ":"))
        running.update((b"," if count > 1 else b"") + text.encode("utf-8", "surrogatepass"))
        if count in wanted:
            whole = running.copy()
            whole.update(b"]")
            hashes[count] = whole.hexdigest()
    return hashes
