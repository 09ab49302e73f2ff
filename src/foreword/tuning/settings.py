"""Everything that can be set about a tuning run. Nothing needs to be."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from foreword.tuning.rows import OnLong


class TuneSettings(BaseModel):
    """Settings of one run; what is left out is chosen.

    Attributes:
        name: the prefix's name.
        positions: virtual positions; None takes as many as the start has.
        instruction: what the task is, as one would tell the model; stands at the start of the first guess.
        initialisation: a key of `tuning/initialisations/` with its argument after a colon (`few-shot:4`, `text:FILE`,
            `prefix:NAME`, `random`), or `auto`: the most reliable one, or what the probes find on a long run.
        parameterisation: `offsets` trains keys and values directly; `mlp` through the paper's network, dropped afterwards.
        objective: a key of `tuning/objectives/`.
        learning_rate: peak step relative to each layer's own size; None as for `auto`.
        examples_seen: training targets to see in all, probes apart; None chooses from the amount of data.
        budget_seconds: the plan is cut to what fits into this time, and again at each evaluation, so the number of steps
            depends on the machine; without a budget it depends on the data alone, and equal seeds give equal prefixes.
        budget_clock: whether the budget counts wall time or this process's processor time, which other programs do not disturb.
        batch_targets: targets per step; None takes 8 for labels and 16 for text.
        patience: dev evaluations without improvement before the run stops early; 0 never stops.
        evaluations: dev evaluations in a run.
        seed: of data order, examples drawn and random starts.
        on_long: what to do with an example longer than the window.
        micro_tokens: tokens computed at once; lower it when memory is short. None chooses by device.
        checkpointing: recompute activations in the backward pass: more time, less memory.
        compile_layers: run the model's layers through torch.compile; pays off on long runs and needs a C++ compiler on the CPU.
        licence: noted in the prefix.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = "prefix"
    positions: int | None = Field(default=None, ge=1)
    instruction: str | None = None
    initialisation: str = "auto"
    parameterisation: Literal["offsets", "mlp"] = "offsets"
    objective: str = "lm"
    learning_rate: float | None = Field(default=None, gt=0, le=100)
    examples_seen: int | None = Field(default=None, ge=1)
    budget_seconds: float | None = Field(default=None, gt=0)
    budget_clock: Literal["wall", "cpu"] = "wall"
    batch_targets: int | None = Field(default=None, ge=1)
    patience: int = Field(default=0, ge=0)
    evaluations: int = Field(default=6, ge=1)
    seed: int = Field(default=0, ge=0, lt=2**32)
    on_long: OnLong = "fail"
    micro_tokens: int | None = Field(default=None, ge=16)
    checkpointing: bool = False
    compile_layers: bool = False
    licence: str | None = None
