"""Zero-shot: the instruction and the input, nothing else. What the model can do when it is only told."""

from __future__ import annotations

from functools import partial

from foreword.evaluate.contender import Context, Prepared, no_argument, with_instruction

TRAINS = False


def check(argument: str | None) -> None:
    """Raises ConfigError when there is an argument."""
    no_argument("zero-shot", argument)


def prepare(context: Context) -> Prepared:
    """Nothing to train."""
    return Prepared(engine=context.engine, conversations=partial(with_instruction, context.task.instruction))
