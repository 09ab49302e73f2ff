"""PEFT's prefix tuning: keys and values drawn at random and trained directly, no projection. Li & Liang 2021."""

from __future__ import annotations

from typing import Any

from foreword.evaluate.contender import Context, Prepared, count_argument

RATES = (1e-2, 1e-1)


def check(argument: str | None) -> None:
    """Raises ConfigError unless the argument is a number of virtual positions, or absent."""
    count_argument("peft-prefix", argument, noun="virtual positions", least=2)


def prepare(context: Context) -> Prepared:
    """Trains with PEFT inside the budget; see `_virtual_tokens.train_and_extract` for the errors."""
    from foreword.evaluate.contenders import _virtual_tokens

    return _virtual_tokens.train_and_extract(context, name="peft-prefix", config=_config, rates=RATES)


def _config(positions: int) -> Any:
    from peft import PrefixTuningConfig

    return PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=positions)
