from __future__ import annotations

import pytest

from foreword.errors import ConfigError
from foreword.evaluate.contenders import finetune, zero_shot


def test_every_weight_is_free_learns_and_is_frozen_again(make_context, mean_log_prob) -> None:
    context = make_context(budget_seconds=1.0)
    engine = context.engine
    examples = context.task.train.examples
    before = mean_log_prob(zero_shot.prepare(context), examples)
    prepared = finetune.prepare(context)
    assert mean_log_prob(prepared, examples) > before
    assert prepared.trained_parameters == engine.parameters
    assert prepared.artifact_bytes > 4 * engine.parameters
    assert all(not parameter.requires_grad and parameter.grad is None for parameter in engine.module.parameters())


def test_it_wants_float32_and_no_argument() -> None:
    assert finetune.WEIGHTS_DTYPE == "float32"
    with pytest.raises(ConfigError, match="takes nothing after a colon"):
        finetune.check("all")
