"""What a verifier is: a check of an answer to a question that needs no gold answer. They live in `verifiers/`.

A verifier module is found by its file name (`json_object.py` is `json-object`) and has

    async def verify(conversation, answer, ask) -> Verdict

`ask` asks the strategy's own model (`Run.ask`), for verifiers that need one; most compute. No gold answer is ever at hand: what a verifier
knows, a user of the strategy would know too.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from foreword import registry
from foreword.types import Completion, Message

FOLDER = "foreword.prompting.verifiers"

Ask = Callable[..., Awaitable[Completion]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What a verifier says of an answer.

    Attributes:
        score: 0 (wrong) to 1 (right).
        reason: what is wrong, in words that a model can act on; empty where nothing is.
    """

    score: float
    reason: str = ""

    @property
    def passed(self) -> bool:
        """Whether there is nothing left to mend."""
        return self.score >= 1.0


Verify = Callable[[Sequence[Message], str, Ask], Awaitable[Verdict]]


def names() -> tuple[str, ...]:
    """The keys of all verifiers."""
    return registry.names(FOLDER)


def get(name: str) -> Verify:
    """The verifier called `name`. Raises `RegistryError`."""
    return registry.find(FOLDER, name).verify
