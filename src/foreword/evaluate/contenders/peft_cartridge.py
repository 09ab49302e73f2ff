"""PEFT's Cartridge: keys and values started from a text's own, the first position frozen as attention sink.

Eyuboglu et al. 2025, "Cartridges", the text initialisation as PEFT documents it, trained here on the task's
own answers. The text is the instruction and training examples.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from foreword.evaluate.contender import Context, Prepared, balanced_sample, count_argument
from foreword.types import Message

RATES = (5e-3, 2e-2)
SHOWN_EXAMPLES = 4


def check(argument: str | None) -> None:
    """Raises ConfigError unless the argument is a number of virtual positions, or absent."""
    count_argument("peft-cartridge", argument, noun="virtual positions", least=2)


def prepare(context: Context) -> Prepared:
    """Trains with PEFT inside the budget; see `_virtual_tokens.train_and_extract` for the errors."""
    from foreword.evaluate.contenders import _virtual_tokens

    return _virtual_tokens.train_and_extract(
        context, name="peft-cartridge", config=_config, rates=RATES, initialise=partial(_from_text, context)
    )


def _config(positions: int) -> Any:
    from peft import CartridgeConfig

    return CartridgeConfig(task_type="CAUSAL_LM", num_virtual_tokens=positions, num_frozen_tokens=1)


def _from_text(context: Context, wrapped: Any, positions: int) -> None:
    """Loads the keys and values of the first `positions` tokens of a text that is long enough, as a system turn.

    PEFT's own `initialize_kv_prefix_from_text` does the same with a cache that forgets what has left a sliding window, so
    it fails on models that have one; the engine reads the text instead.
    """
    from peft.tuners.cartridge.utils import initialize_kv_prefix_from_past_key_values

    from foreword.evaluate.contenders import _virtual_tokens

    task, engine = context.task, context.engine
    rows = list(task.train)
    labels = task.labels if task.kind == "classification" else None
    shown = balanced_sample(rows, min(SHOWN_EXAMPLES, len(rows)), labels=labels, seed=context.seed)
    text = _virtual_tokens.opening_text(task.instruction, shown)
    while len(engine.encode(text)) < positions:
        text = f"{text}\n\n{text}"
    # With a user's turn behind it, because some templates write the system turn only as part of that.
    token_ids = engine.render((Message(role="system", content=text), Message(role="user", content="")))
    key_LHND, value_LHND = engine.read(token_ids[:positions])
    cache = [(key_LHND[layer][None], value_LHND[layer][None]) for layer in range(len(key_LHND))]
    initialize_kv_prefix_from_past_key_values(wrapped, past_key_values=cache)
