from __future__ import annotations

import pytest

from foreword.errors import ConfigError
from foreword.evaluate.contenders import peft_prefix
from foreword.types import Sampling


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_it_trains_positions_that_our_engine_serves(make_context, dtype: str) -> None:
    context = make_context(argument="4", budget_seconds=0.5, dtype=dtype)
    prepared = peft_prefix.prepare(context)
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
        peft_prefix.check(argument)


def test_all_positions_are_trained_and_training_helps(make_context, mean_log_prob) -> None:
    examples = make_context().task.train.examples
    brief = peft_prefix.prepare(make_context(argument="4", budget_seconds=1e-6))
    longer = peft_prefix.prepare(make_context(argument="4", budget_seconds=1.5))
    assert longer.prefix is not None
    assert longer.trained_parameters == longer.prefix.parameters
    assert mean_log_prob(longer, examples) > mean_log_prob(brief, examples)
