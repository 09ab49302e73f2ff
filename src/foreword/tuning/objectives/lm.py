"""`lm`: negative log-likelihood of the target tokens given prefix and prompt (Li & Liang 2021, eq. 2).

The prompt contributes nothing to the loss: a prefix is to steer what is answered, not to predict what is asked.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from foreword.engine import Differentiable, Row

if TYPE_CHECKING:
    from torch import Tensor


def loss(engine: Differentiable, rows: Sequence[Row], key_LHND: Tensor, value_LHND: Tensor) -> Tensor:
    """Summed negative log-likelihood of the targets, in nats."""
    return -engine.target_log_probs(rows, key_LHND, value_LHND).sum()
