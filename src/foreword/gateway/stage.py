"""What a stage of the path is. They live in `stages/`, one file each, and the configuration gives their order.

A stage module is found by its file name (`guard_in.py` is `guard-in`) and has

    def make(path: Parts) -> Stage         what it keeps from request to request, made when the server starts

A stage takes a passage and says where it goes next: `ON` to the next stage, `ANSWERED` past `assemble`, `route` and `infer` because the
answer is there already, `AGAIN` back to `infer` for another answer. It raises `Refusal` for what the client has to know.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING, Any

from foreword import registry
from foreword.gateway.passage import Passage, Target

if TYPE_CHECKING:
    from foreword.cost.ledger import Ledger
    from foreword.cost.rates import PriceTable
    from foreword.gateway.path_settings import PathSettings
    from foreword.prompting.store import PromptStore
    from foreword.retrieval.embedder import Embedder

FOLDER = "foreword.gateway.stages"
ORDER = ("intake", "limit", "guard-in", "budget", "cache", "assemble", "route", "reserve", "infer", "check", "bill")


class Next(Enum):
    """Where a passage goes from a stage."""

    ON = auto()
    ANSWERED = auto()
    AGAIN = auto()


Stage = Callable[[Passage], Awaitable[Next]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What stages are made of.

    Attributes:
        targets: by their name in the configuration.
        embedder: None where no task type needs one.
        ledger: None where nothing is written down.
        closing: functions that end what a stage started, called when the server stops; stages add theirs.
    """

    settings: PathSettings
    targets: Mapping[str, Target]
    prices: PriceTable
    prompts: PromptStore | None
    embedder: Embedder | None
    ledger: Ledger | None
    closing: list[Callable[[], Awaitable[Any]]]


def names() -> tuple[str, ...]:
    """The keys of all stages."""
    return registry.names(FOLDER)


def make(name: str, parts: Parts) -> Stage:
    """The stage called `name`. Raises `RegistryError`."""
    return registry.find(FOLDER, name).make(parts)
