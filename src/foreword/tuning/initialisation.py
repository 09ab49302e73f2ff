"""Where training starts. An initialisation is a module in `initialisations/` with one function, `start`.

A prompt is the first guess, tuning finishes it: the keys and values of an instruction with a few examples start
lower and far more reliably than random numbers (Li & Liang 2021, §6.5 for real words; Petrov et al. 2023 for why a
prefix elicits rather than teaches).

Axes: L layer, H KV head, N virtual position, D head dimension.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, cast

from foreword import registry
from foreword.data.dataset import Dataset
from foreword.engine import Differentiable
from foreword.prefix.header import PromptFormat

if TYPE_CHECKING:
    from torch import Tensor

    from foreword.prefix.store import PrefixStore

FOLDER = "foreword.tuning.initialisations"


@dataclass(frozen=True, slots=True, kw_only=True)
class StartContext:
    """What an initialisation may draw on.

    Attributes:
        positions: how many positions are wanted; None leaves it to the initialisation.
        argument: what stood after the colon, e.g. `4` in `few-shot:4`.
        room: most positions that leave space for the longest example.
        store: where names of prefixes are looked up; the default one where it is missing.
    """

    engine: Differentiable
    train: Dataset
    instruction: str | None
    positions: int | None
    argument: str | None
    seed: int
    room: int
    store: PrefixStore | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """Keys and values to begin with.

    Attributes:
        used: examples (by place in the training data) that stand in the start, so that training can leave them out.
    """

    key_LHND: Tensor
    value_LHND: Tensor
    prompt_format: PromptFormat
    used: frozenset[int] = frozenset()
    parents: tuple[str, ...] = ()

    @property
    def positions(self) -> int:
        """Virtual positions."""
        return self.key_LHND.shape[2]


class Initialisation(Protocol):
    """A module that makes a start."""

    def start(self, context: StartContext) -> Start:
        """Keys and values at positions 0..N-1."""
        ...


def get(name: str) -> Initialisation:
    """The initialisation called `name` (without its argument).

    Raises:
        RegistryError: there is none.
    """
    return cast(Initialisation, registry.find(FOLDER, name))
