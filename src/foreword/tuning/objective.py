"""What a prefix is trained to do. An objective is a module in `objectives/` with one function, `loss`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, cast

from foreword import registry
from foreword.engine import Differentiable, Row

if TYPE_CHECKING:
    from torch import Tensor

FOLDER = "foreword.tuning.objectives"


class Objective(Protocol):
    """A module that gives the loss of some rows under a prefix."""

    def loss(self, engine: Differentiable, rows: Sequence[Row], key_LHND: Tensor, value_LHND: Tensor) -> Tensor:
        """Summed loss over the rows' targets, scalar; the trainer divides by the batch's number of target tokens."""
        ...


def get(name: str) -> Objective:
    """The objective called `name`.

    Raises:
        RegistryError: there is none.
    """
    return cast(Objective, registry.find(FOLDER, name))
