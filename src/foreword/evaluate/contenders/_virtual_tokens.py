"""What PEFT's two KV methods share: train through PEFT's own forward, then take the keys and values out as a prefix.

Axes: L layer, H KV head, N virtual position, D head dimension.

The prefix is then served by our engine like any other, so that quality and latency are measured by the same code.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from foreword.errors import EvaluationError
from foreword.evaluate.contender import Context, Prepared, with_instruction
from foreword.evaluate.contenders import _training
from foreword.prefix.artifact import Prefix
from foreword.types import Example

POSITIONS = 32


def train_and_extract(
    context: Context,
    *,
    name: str,
    config: Callable[[int], Any],
    rates: Sequence[float],
    initialise: Callable[[Any, int], None] | None = None,
) -> Prepared:
    """Trains virtual positions with PEFT inside the budget.

    Args:
        name: of the contender and of the prefix that comes out.
        config: PEFT's configuration for a number of virtual positions.
        rates: learning rates to probe.
        initialise: sets the positions from something better than chance; given the wrapped model and their number.

    Raises:
        EvaluationError: PEFT is not installed, or there is too little data.
        NonFiniteLoss: no rate trained.
    """
    try:
        from peft import get_peft_model
    except ModuleNotFoundError as error:
        raise EvaluationError(f"`{name}` needs the package `peft`. Install it with: pip install 'foreword[compare]'") from error

    start = context.now()
    positions = int(context.argument) if context.argument else POSITIONS
    engine, module = context.engine, context.engine.module
    conversations = partial(with_instruction, context.task.instruction)
    lesson = _training.lesson(context, conversations, room=engine.window - positions)
    torch.manual_seed(context.seed)
    with _training.stock_attention(module):
        wrapped = get_peft_model(module, config(positions))
        if initialise is not None:
            initialise(wrapped, positions)
        free = {label: parameter for label, parameter in wrapped.named_parameters() if parameter.requires_grad}
        trainee = _training.Trainee(module=wrapped, parameters=free, loss=_training.peft_loss(wrapped), folder=context.scratch)
        trained = _training.train(trainee, lesson, rates=rates, context=context, start=start)
        key_LHND, value_LHND = extract(wrapped, dtype=module.dtype)
    module.requires_grad_(False)
    prefix = Prefix.make(
        name=name,
        kind="learned",
        key_LHND=key_LHND,
        value_LHND=value_LHND,
        fingerprint=engine.fingerprint,
        geometry=engine.geometry,
        prompt_format="full",
        seed=context.seed,
        instruction=context.task.instruction,
        recipe={"method": name, "rate": trained.rate, "steps": trained.steps, "seconds": trained.seconds},
    )
    kept = context.scratch / f"{name}.safetensors"
    prefix.save(kept)
    return Prepared(
        engine=engine,
        conversations=conversations,
        prefix=prefix,
        trained_parameters=sum(parameter.numel() for parameter in free.values()),
        artifact_bytes=kept.stat().st_size,
        training_seconds=trained.seconds,
        notes=(*trained.notes(), *lesson.notes()),
    )


def extract(wrapped: Any, *, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """`key_LHND`, `value_LHND` that PEFT puts into the cache; the first prompt token stands at position N behind them.

    Taken from the tensor that PEFT saves, (N, L · 2 · H · D) with a layer's keys before its values, because a cache of a
    model with sliding windows may already have dropped the first positions.
    """
    config = wrapped.active_peft_config
    flat = wrapped.get_prompt_embedding_to_save(wrapped.active_adapter).to(dtype)
    heads = config.num_attention_heads
    both_NLHD = flat.view(config.num_virtual_tokens, config.num_layers * 2, heads, config.token_dim // heads)
    both_LHND = both_NLHD.permute(1, 2, 0, 3)
    return both_LHND[0::2].contiguous(), both_LHND[1::2].contiguous()


def opening_text(instruction: str | None, examples: Sequence[Example]) -> str:
    """The instruction and a few examples as one text, to start virtual positions from."""
    shown = [f"{example.prompt}\n{example.completions[0]}" for example in examples]
    return "\n\n".join([*([instruction] if instruction else []), *shown])
