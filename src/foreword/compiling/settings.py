"""What can be chosen about a compilation."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

SELECTIONS = ("fitted", "attention", "kvzip", "heavy-hitter", "random", "truncate")
"""How kept positions are chosen; `compiling/selection.py` explains each."""


class CompileSettings(BaseModel):
    """Settings of a compilation; a compiler refuses what it cannot honour.

    Attributes:
        chat: the text is the system message of a conversation; otherwise it stands as it is, before all turns.
        positions: how many positions the prefix shall have.
        ratio: in place of `positions`, how many times fewer than the text has tokens.
        select: how kept positions are chosen.
        questions: how many questions the model asks itself about the text, to see what a user's queries look like.
        tail: how many of the positions may go to a text tail (`compiling/tail.py`): exact strings of the text, kept as they are.
        steps: `distil`: training steps.
        order: `dictionary`: how entries follow one another.
        separate: `dictionary`: each entry is read on its own, so that a request can be given a few of them (`compiling/chosen_entries.py`).
        seed: of every draw.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    chat: bool = False
    positions: int | None = Field(default=None, ge=1)
    ratio: float | None = Field(default=None, ge=1.0, allow_inf_nan=False)
    select: str = "fitted"
    questions: int = Field(default=32, ge=0, le=1000)
    tail: int = Field(default=0, ge=0)
    steps: int = Field(default=100, ge=1, le=100_000)
    order: Literal["alphabetical", "topic"] = "alphabetical"
    separate: bool = False
    seed: int = Field(default=0, ge=0, lt=2**31)

    @model_validator(mode="after")
    def _one_size_and_a_known_selection(self) -> CompileSettings:
        if self.positions is not None and self.ratio is not None:
            raise ValueError("give `positions` or `ratio`, not both")
        if self.select not in SELECTIONS:
            raise ValueError(f"`select` must be one of {', '.join(SELECTIONS)}; got {self.select!r}")
        return self
