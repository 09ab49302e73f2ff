"""Whether a model computes the same on our path as on its own, found out on a few tokens when it is loaded.

Axes: T token, L layer, H KV head, N virtual position, D head dimension.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from foreword.engine import Row
from foreword.engines import _attention
from foreword.errors import ModelError

if TYPE_CHECKING:
    from foreword.engines.transformers import TransformersEngine

TOLERANCE = {torch.float32: 0.05, torch.bfloat16: 1.5, torch.float16: 0.5}
"""Largest log-probability difference (nats) accepted. The probe is improbable text, on which bfloat16 noise alone reaches 0.6."""


def check(engine: TransformersEngine, *, vocabulary: int) -> None:
    """Switches the model to our attention.

    Raises:
        ModelError: that changes its numbers, or it cannot be done.
    """
    module = engine.module
    tokens = torch.arange(1, 9, device=engine.device)[None] % vocabulary
    row = Row(prompt=tuple(tokens[0, :4].tolist()), targets=(tuple(tokens[0, 4:].tolist()),))
    try:
        with torch.inference_mode():
            theirs = module(input_ids=tokens, use_cache=False).logits.float().log_softmax(-1)[0, 3:-1]
            module.set_attn_implementation(_attention.NAME)
            ours = torch.stack([engine.target_log_probs([row]), _after_reading(engine, row)])
    except (RuntimeError, ValueError, TypeError, AttributeError, IndexError) as error:
        raise ModelError(
            f"`{engine.name}` ({type(module).__name__}) is built in a way that Foreword does not know: {error}. "
            "Proven families: Llama, Qwen3, Gemma 3, GPT-2, GPT-NeoX."
        ) from error
    gap = (theirs.gather(1, tokens[0, 4:, None])[:, 0] - ours).abs().max()
    if not gap < TOLERANCE[engine.dtype]:
        raise ModelError(
            f"`{engine.name}` ({type(module).__name__}) computes its logits in a way that Foreword does not know "
            f"(log-probabilities differ by {float(gap):.3g}). Proven families: Llama, Qwen3, Gemma 3, GPT-2, GPT-NeoX."
        )


def _after_reading(engine: TransformersEngine, row: Row) -> Tensor:
    """Log-probabilities of the row's targets with its prompt, but for the last token, as a prefix."""
    key_LHND, value_LHND = engine.read(row.prompt[:-1])
    geometry = engine.geometry
    shape = (geometry.layers, geometry.kv_heads, len(row.prompt) - 1, geometry.head_dim)
    if key_LHND.shape != shape or value_LHND.shape != shape:
        raise ValueError(f"its keys have shape {tuple(key_LHND.shape)} where the config promises {shape}")
    return engine.target_log_probs([Row(prompt=row.prompt[-1:], targets=row.targets)], key_LHND, value_LHND)
