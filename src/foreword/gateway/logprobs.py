"""Log-probabilities in the shapes of the two endpoints."""

from __future__ import annotations

from collections.abc import Sequence

from foreword.gateway.wire import ChatLogprobs, TextLogprobs, TokenEntry, TopEntry
from foreword.types import TokenLogprob

_NO_CHARACTER = "\ufffd"


def chat_logprobs(tokens: Sequence[TokenLogprob]) -> ChatLogprobs:
    """One entry per token, each with its bytes and the most probable tokens at its place."""
    return ChatLogprobs(
        content=[
            TokenEntry(
                token=token.text,
                logprob=token.logprob,
                bytes=_bytes(token.text),
                top_logprobs=[TopEntry(token=other.text, logprob=other.logprob, bytes=_bytes(other.text)) for other in token.top],
            )
            for token in tokens
        ]
    )


def text_logprobs(tokens: Sequence[TokenLogprob], *, start: int) -> TextLogprobs:
    """Parallel lists.

    Args:
        start: characters of the answer before the first of these tokens.
    """
    offsets = []
    for token in tokens:
        offsets.append(start)
        start += len(token.text)
    return TextLogprobs(
        tokens=[token.text for token in tokens],
        token_logprobs=[token.logprob for token in tokens],
        top_logprobs=[{other.text: other.logprob for other in token.top} for token in tokens],
        text_offset=offsets,
    )


def _bytes(text: str) -> list[int] | None:
    return None if _NO_CHARACTER in text else list(text.encode("utf-8"))
