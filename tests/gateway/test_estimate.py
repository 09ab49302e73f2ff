"""Counts where a model told none."""

from __future__ import annotations

import msgspec

from foreword.cost.rates import Consumed
from foreword.gateway.estimate import at_least, estimated, prompt_tokens, tokens
from foreword.gateway.path_wire import REQUEST, PathRequest


def request(**fields: object) -> PathRequest:
    return REQUEST.decode(msgspec.json.encode({"model": "big", "messages": [{"role": "user", "content": "x" * 400}], **fields}))


def test_four_characters_are_a_token_rounded_up() -> None:
    assert [tokens(count) for count in (0, 1, 4, 5)] == [0, 1, 1, 2]


def test_a_prompt_is_its_words_its_tools_and_its_schema() -> None:
    bare = prompt_tokens(request())
    assert bare == 100 + 4
    assert prompt_tokens(request(tools=[{"type": "function", "function": {"name": "f" * 400}}])) >= bare + 100
    assert prompt_tokens(request(response_format={"type": "json_schema", "json_schema": {"name": "s" * 400}})) >= bare + 100


def test_an_answer_is_its_characters_or_its_chunks_whichever_is_more() -> None:
    assert estimated(request(), characters=40, chunks=3) == Consumed(input_tokens=104, output_tokens=10, estimated=True)
    assert estimated(request(), characters=4, chunks=3).output_tokens == 3


def test_what_the_model_said_holds_unless_more_was_seen() -> None:
    told = Consumed(input_tokens=9, output_tokens=5)
    assert at_least(told, characters=12, chunks=4) is told
    assert at_least(told, characters=80, chunks=4) == Consumed(input_tokens=9, output_tokens=20, estimated=True)
