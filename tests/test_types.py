"""The nouns that every room shares."""

from __future__ import annotations

import dataclasses

import pytest

from foreword.types import Completion, Example, Message, Sampling, Usage

USAGE = Usage(prompt_tokens=7, completion_tokens=3, prefix_positions=32)


def test_the_prompt_is_the_last_turn():
    turns = (Message(role="system", content="Be nice"), Message(role="user", content="Hi"))
    assert Example(messages=turns, completions=("Ho",)).prompt == "Hi"


def test_positions_are_the_prefix_and_the_prompt():
    assert USAGE.prompt_positions == 39
    assert Usage(prompt_tokens=7, completion_tokens=3).prompt_positions == 7


def test_sampling_is_greedy_unless_told():
    assert Sampling() == Sampling(temperature=0.0, top_p=1.0, top_k=0, stop=())


@pytest.mark.parametrize(
    "value",
    [
        Message(role="user", content="Hi"),
        Example(messages=(), completions=()),
        Sampling(),
        USAGE,
        Completion(text="", token_ids=(), usage=USAGE, finish_reason="stop", seconds=0.0),
    ],
)
def test_values_are_frozen_and_by_keyword(value):
    field = dataclasses.fields(value)[0]
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(value, field.name, getattr(value, field.name))
    with pytest.raises(TypeError):
        type(value)("positional")
    assert not hasattr(value, "__dict__")
    assert dataclasses.replace(value) == value
