"""Keys and values taken out of PEFT mean to our engine what they meant to PEFT."""

from __future__ import annotations

import pytest
import torch

from foreword.engine import Row
from foreword.evaluate.contenders import _virtual_tokens
from foreword.evaluate.contenders._training import Pair, peft_loss, stock_attention
from foreword.types import Example, Message

PAIRS = [Pair(prompt=(5, 6, 7), target=(8, 9)), Pair(prompt=(10, 11, 12, 13, 14), target=(15, 16, 17))]


@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma3_text", "gpt2", "gpt_neox"])
def test_the_engine_with_the_prefix_gives_pefts_own_loss(make_context, family: str) -> None:
    from peft import PrefixTuningConfig, get_peft_model

    engine = make_context(family=family).engine
    torch.manual_seed(0)
    with torch.no_grad(), stock_attention(engine.module):
        wrapped = get_peft_model(engine.module, PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3))
        theirs, tokens = peft_loss(wrapped)(PAIRS)
        key_LHND, value_LHND = _virtual_tokens.extract(wrapped, dtype=engine.dtype)
    geometry = engine.geometry
    assert key_LHND.shape == value_LHND.shape == (geometry.layers, geometry.kv_heads, 3, geometry.head_dim)
    with torch.no_grad():
        ours = -engine.target_log_probs([Row(prompt=pair.prompt, targets=(pair.target,)) for pair in PAIRS], key_LHND, value_LHND).sum()
    assert tokens == 5
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-3)


def test_the_opening_text_has_the_instruction_and_the_examples() -> None:
    example = Example(messages=(Message(role="user", content="in"),), completions=("out", "other"))
    assert _virtual_tokens.opening_text("Do it.", [example]) == "Do it.\n\nin\nout"
    assert _virtual_tokens.opening_text(None, [example]) == "in\nout"
