"""Training that goes on after an interruption."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from foreword.compiling.observer import Observer
    from foreword.tuning.trainer import Trainer

STEPS_BETWEEN_SAVES = 5
_STATE = "trainer."


def go_on(trainer: Trainer, kept: dict[str, Tensor], *, step: int) -> None:
    """Puts a trainer where an interrupted run was: at `step`, with what `train` last saved among the kept tensors."""
    if step:
        trainer.load_state({name.removeprefix(_STATE): tensor for name, tensor in kept.items() if name.startswith(_STATE)}, step=step)


def train(trainer: Trainer, steps: int, observer: Observer, save: Callable[[dict[str, Tensor], int], None]) -> None:
    """Trains up to so many steps in all; every few steps `save` is given the trainer's state, named as `go_on` wants it, and the step."""
    observer.stage("training", steps)
    observer.advance(trainer.step)
    while trainer.step < steps:
        before = trainer.step
        trainer.run(min(steps, before + STEPS_BETWEEN_SAVES))
        observer.advance(trainer.step - before)
        save({f"{_STATE}{name}": tensor for name, tensor in trainer.state().items()}, trainer.step)
