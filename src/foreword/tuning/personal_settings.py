"""Everything that can be set about tuning one prefix per user. Reaches no torch."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from foreword.tuning.rows import OnLong

NOT_OF_THE_RESULT = frozenset({"users_at_once", "micro_tokens", "checkpointing"})
"""Settings that change how much is computed at once and, up to rounding, nothing else."""


class PersonalSettings(BaseModel):
    """Settings of one run over many users; what is left out is chosen.

    Attributes:
        name: what the prefixes' names begin with; that of user `ana` is `NAME-ana`.
        positions: virtual positions of each user.
        start: where every user starts: a key of `tuning/initialisations/` with its argument after a colon. `few-shot:8` draws its
            examples from all users' training data, so each prefix starts with some of their words; `prefix:TASK` and `text:FILE` do not.
        behind: `prefix:TASK`, a prefix that stands, frozen, in front of every user's positions.
        instruction: what the task is, as one would tell the model; stands at the start of the first guess.
        learning_rate: peak step relative to each layer's own size.
        examples_seen: training targets that each user sees; None takes eight rounds through the user's own, within bounds.
        budget_seconds: the steps of all users are cut to what fits into this wall time; the result then depends on the machine.
        batch_targets: targets of each user in a step; few, since the batch is large by the number of users.
        evaluations: dev evaluations of each user, the one before training apart.
        seed: of examples drawn, dev rows and data order; a user's own seed follows from it and the user's id.
        on_long: what to do with an example longer than the window.
        users_at_once: users that are trained together; None takes 64, or as many as fit into memory.
        micro_tokens: tokens computed at once; None chooses by device.
        checkpointing: recompute activations in the backward pass: more time, less memory.
        licence: noted in the prefixes.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = "user"
    positions: int = Field(default=16, ge=1)
    start: str = "few-shot:8"
    behind: str | None = None
    instruction: str | None = None
    learning_rate: float = Field(default=0.02, gt=0, le=100)
    examples_seen: int | None = Field(default=None, ge=1)
    budget_seconds: float | None = Field(default=None, gt=0)
    batch_targets: int = Field(default=2, ge=1)
    evaluations: int = Field(default=6, ge=1)
    seed: int = Field(default=0, ge=0, lt=2**32)
    on_long: OnLong = "fail"
    users_at_once: int | None = Field(default=None, ge=1)
    micro_tokens: int | None = Field(default=None, ge=16)
    checkpointing: bool = False
    licence: str | None = None

    def of_the_result(self) -> dict[str, Any]:
        """The settings that the prefixes depend on, as JSON."""
        return self.model_dump(mode="json", exclude=set(NOT_OF_THE_RESULT))
