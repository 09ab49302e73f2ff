"""How many tokens a part of a request takes, about.

Which model will answer is not known before `route`, so no tokenizer is asked: a token is taken to be four bytes of UTF-8. That is near for
English prose; code, numbers and some scripts take more.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from foreword.gateway.estimate import TOKENS_PER_TURN, tokens
from foreword.gateway.path_wire import PathMessage

IMAGE_TOKENS = 300
"""Of a part that is no text: about what models take for a small picture."""


def text_tokens(text: str) -> int:
    """Of a text."""
    return tokens(len(text) if text.isascii() else len(text.encode("utf-8", "replace")))


def message_tokens(messages: Iterable[PathMessage]) -> int:
    """Of messages, with what a chat format puts around each."""
    return sum(TOKENS_PER_TURN + _content(message) for message in messages)


def json_tokens(value: Any) -> int:
    """Of a tool's definition, or anything else that is sent as JSON."""
    return tokens(len(msgspec.json.encode(value)))


def _content(message: PathMessage) -> int:
    count = text_tokens(message.text)
    if isinstance(message.content, list):
        count += IMAGE_TOKENS * sum(part.get("type") != "text" for part in message.content)
    if isinstance(message.tool_calls, list):
        count += json_tokens(message.tool_calls)
    return count
