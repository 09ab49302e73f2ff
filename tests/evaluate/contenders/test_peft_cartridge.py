from __future__ import annotations

import pytest

from foreword.errors import ConfigError
from foreword.evaluate.contenders import peft_cartridge
from foreword.types import Sampling


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_it_trains_positions_that_our_engine_serves(make_context, dtype: str) -> None:
    context = make_context(argument="4", budget_seconds=0.5, dtype=dtype)
    prepared = peft_cartridge.prepare(context)
    assert prepared.prefix is not None
    assert (prepared.prefix.positions, prepared.prefix.header.dtype) == (4, dtype)
    assert prepared.artifact_bytes > prepared.prefix.nbytes
    example = context.task.dev.examples[0]
    answer = context.engine.generate([prepared.conversations(example)], prefix=prepared.prefix, sampling=Sampling(max_new_tokens=2))[0]
    assert answer.usage.prefix_positions == 4
    assert prepared.training_seconds > 0


@pytest.mark.parametrize("argument", ["0", "1", "many"])
def test_an_argument_that_is_no_length_is_refused(argument: str) -> None:
    with pytest.raises(ConfigError, match="virtual positions"):
        peft_cartridge.check(argument)


@pytest.mark.parametrize("family", ["llama", "gemma3_text", "gpt2"])
def test_the_first_position_is_the_texts_own_and_stays(make_context, family: str) -> None:
    import torch

    context = make_context(argument="4", family=family)
    prepared = peft_cartridge.prepare(context)
    assert prepared.prefix is not None
    assert prepared.trained_parameters == prepared.prefix.parameters * 3 // 4
    text_start = context.engine.render(prepared.conversations(context.task.dev.examples[0]))[:1]
    key_LHND, _ = context.engine.read(text_start)
    torch.testing.assert_close(prepared.prefix.key_LHND[:, :, :1], key_LHND)
