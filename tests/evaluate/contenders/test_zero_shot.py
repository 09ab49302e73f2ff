from __future__ import annotations

import pytest

from foreword.errors import ConfigError
from foreword.evaluate.contenders import zero_shot
from foreword.types import Message


def test_the_instruction_and_the_input_and_nothing_else(make_context) -> None:
    context = make_context()
    prepared = zero_shot.prepare(context)
    example = context.task.dev.examples[0]
    assert prepared.conversations(example) == (Message(role="system", content="Describe the place."), *example.messages)
    assert prepared.prefix is None
    assert (prepared.trained_parameters, prepared.artifact_bytes, prepared.training_seconds) == (0, 0, 0.0)


def test_it_takes_no_argument() -> None:
    zero_shot.check(None)
    with pytest.raises(ConfigError, match="takes nothing after a colon"):
        zero_shot.check("8")
