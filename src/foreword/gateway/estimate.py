"""What a call took, where its model did not say: an answer that broke off, a client that left, a server that sends no usage.

A token is taken to be four characters of text (of the prompt, its tools and its schema; of the answer), and an answer's chunk that has
something in it to be a token at least. What is priced by such a count says `(estimated)` in the ledger.
"""

from __future__ import annotations

from dataclasses import replace

import msgspec
from msgspec import UNSET

from foreword.cost.rates import Consumed
from foreword.gateway.path_wire import PathRequest

CHARACTERS_PER_TOKEN = 4
TOKENS_PER_TURN = 4
"""What a chat format puts around each turn."""


def tokens(characters: int) -> int:
    """Tokens of so many characters, rounded up."""
    return -(-characters // CHARACTERS_PER_TOKEN)


def prompt_tokens(request: PathRequest) -> int:
    """Tokens of what a model has to read; an image or a sound is not counted."""
    characters = sum(len(message.text) for message in request.messages)
    for given in (request.tools, request.response_format):
        if given is not None and given is not UNSET:
            characters += len(msgspec.json.encode(given))
    calls = sum(len(msgspec.json.encode(message.tool_calls)) for message in request.messages if message.tool_calls)
    return tokens(characters + calls) + TOKENS_PER_TURN * len(request.messages)


def estimated(request: PathRequest, *, characters: int = 0, chunks: int = 0, seconds: float | None = None) -> Consumed:
    """What a call of `request` took, of whose answer so much was seen."""
    return Consumed(
        input_tokens=prompt_tokens(request),
        output_tokens=max(tokens(characters), chunks),
        machine_seconds=seconds,
        estimated=True,
    )


def at_least(told: Consumed, *, characters: int, chunks: int) -> Consumed:
    """What a model said before its answer broke off, with as much of the answer as was seen after that."""
    seen = max(tokens(characters), chunks)
    return told if told.output_tokens >= seen else replace(told, output_tokens=seen, estimated=True)
