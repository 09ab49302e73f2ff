from __future__ import annotations

import pytest
import torch

from foreword.errors import ConfigError
from foreword.evaluate.contenders import lora, zero_shot


def linear_sizes(module: torch.nn.Module) -> int:
    """Inputs plus outputs over all linear layers but the head."""
    head = module.get_output_embeddings()
    return sum(
        layer.in_features + layer.out_features for layer in module.modules() if isinstance(layer, torch.nn.Linear) and layer is not head
    )


def test_it_learns_and_is_merged_into_the_weights(make_context, mean_log_prob) -> None:
    context = make_context(budget_seconds=1.0)
    examples = context.task.train.examples
    before = mean_log_prob(zero_shot.prepare(context), examples)
    expected = lora.RANK * linear_sizes(context.engine.module)
    prepared = lora.prepare(context)
    assert prepared.trained_parameters == expected
    assert prepared.artifact_bytes > 4 * expected
    assert mean_log_prob(prepared, examples) > before
    names = [name for name, _ in context.engine.module.named_parameters()]
    assert not any("lora" in name for name in names)
    assert not any(parameter.requires_grad for parameter in context.engine.module.parameters())


def test_in_bfloat16_its_own_parameters_stay_float32_and_apart(make_context) -> None:
    context = make_context(dtype="bfloat16")
    prepared = lora.prepare(context)
    kinds = {parameter.dtype for name, parameter in context.engine.module.named_parameters() if "lora" in name}
    assert kinds == {torch.float32}
    assert "kept apart from the weights" in prepared.notes
    assert context.engine.generate([prepared.conversations(context.task.dev.examples[0])])[0].usage.prefix_positions == 0


def test_it_takes_no_argument() -> None:
    with pytest.raises(ConfigError, match="takes nothing after a colon"):
        lora.check("8")
