"""What a contender is: one way to make a frozen (or not so frozen) model good at a task. They live in `contenders/`.

A contender module is found by its file name (`few_shot.py` is `few-shot`) and has

    check(argument) -> None            raises ConfigError when what stands after the colon cannot be used
    prepare(context) -> Prepared       trains or assembles whatever it needs, inside the budget
    WEIGHTS_DTYPE = "float32"          optional: the dtype it needs the weights in, whatever was asked for

This file reaches no torch.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal

from foreword import registry
from foreword.errors import ConfigError, EvaluationError
from foreword.types import Example, Message

if TYPE_CHECKING:
    from foreword.data.dataset import Dataset
    from foreword.evaluate.task import Task
    from foreword.prefix.artifact import Prefix

FOLDER = "foreword.evaluate.contenders"
ClockName = Literal["wall", "cpu"]
Conversations = Callable[[Example], tuple[Message, ...]]
Note = Callable[[str], None]

SELECTION_SHARE = 0.15
SELECTION_ROWS = (8, 64)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A contender as it was asked for: `few-shot:8` has the key `few-shot` and the argument `8`."""

    spec: str
    key: str
    argument: str | None
    module: ModuleType


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What a contender works with.

    Attributes:
        engine: the model, freshly loaded for this contender alone; it may be altered.
        task: data, instruction, labels and scorers.
        argument: what stood after the colon, None when nothing did.
        budget_seconds: training time on `clock`, everything included that needs the training data.
        seed: of every choice that is drawn.
        clock: `wall` (elapsed time) or `cpu` (processor time of this process, all threads).
        store_root: where named prefixes lie; None is the default store.
        scratch: an empty folder that is removed afterwards.
        report: called with a short line when a new stage of the work begins.
    """

    engine: Any
    task: Task
    argument: str | None
    budget_seconds: float
    seed: int
    clock: ClockName
    store_root: Path | None
    scratch: Path
    report: Note

    def now(self) -> float:
        """Seconds on the budget's clock."""
        return time.perf_counter() if self.clock == "wall" else time.process_time()


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A contender that is ready to be measured.

    Attributes:
        engine: answers the conversations, with `prefix` before them where there is one.
        conversations: the turns that are sent for an example.
        trained_parameters: numbers that training was free to change.
        artifact_bytes: size of what has to be kept per task (0: nothing but text).
        training_seconds: on the budget's clock.
        notes: what a reader of the table has to know: rates chosen, rows left out.
    """

    engine: Any
    conversations: Conversations
    prefix: Prefix | None = None
    trained_parameters: int = 0
    artifact_bytes: int = 0
    training_seconds: float = 0.0
    notes: tuple[str, ...] = ()


def parse(spec: str) -> Entry:
    """Finds the contender that `spec` names and checks its argument, before anything is trained.

    Raises:
        RegistryError: no contender has that name.
        ConfigError: the argument cannot be used.
    """
    key, colon, rest = spec.strip().partition(":")
    if colon and not rest:
        raise ConfigError(f"`{spec}` ends in a colon with nothing after it. Drop the colon or name what it is for.")
    module = registry.find(FOLDER, key)
    argument = rest if colon else None
    module.check(argument)
    return Entry(spec=spec.strip(), key=key, argument=argument, module=module)


def no_argument(name: str, argument: str | None) -> None:
    """The `check` of a contender that takes no argument."""
    if argument is not None:
        raise ConfigError(f"`{name}` takes nothing after a colon; got `{name}:{argument}`. Write `{name}`.")


def count_argument(name: str, argument: str | None, *, noun: str, least: int) -> None:
    """The `check` of a contender that takes a number, or nothing, after a colon."""
    if argument is not None and not (argument.isascii() and argument.isdigit() and int(argument) >= least):
        raise ConfigError(f"`{name}:{argument}` needs a whole number of {noun}, at least {least}, after the colon, e.g. `{name}:8`.")


def with_instruction(instruction: str | None, example: Example) -> tuple[Message, ...]:
    """The example's turns, the instruction as the system turn; a system turn of the data comes after it."""
    if not instruction:
        return example.messages
    first = example.messages[0]
    if first.role == "system":
        return (replace(first, content=f"{instruction}\n\n{first.content}"), *example.messages[1:])
    return (Message(role="system", content=instruction), *example.messages)


def split_for_selection(train: Dataset, seed: int) -> tuple[list[Example], list[Example]]:
    """Training rows, and rows held out of them to choose rates and checkpoints by.

    The dev rows that judge the table choose nothing: every contender that selects does so on the same
    held-out training rows. Inputs that occur more than once stay on one side.

    Raises:
        EvaluationError: fewer than two distinct inputs.
    """
    groups: dict[tuple[Message, ...], list[Example]] = {}
    for example in train:
        groups.setdefault(example.messages, []).append(example)
    if len(groups) < 2:
        raise EvaluationError(f"Training needs at least two different inputs to learn from and choose by; got {len(groups)}.")
    order = list(groups.values())
    random.Random(seed).shuffle(order)
    low, high = SELECTION_ROWS
    wanted = min(high, max(low, round(SELECTION_SHARE * len(order))), len(order) // 2)
    selection = [example for group in order[:wanted] for example in group]
    return [example for group in order[wanted:] for example in group], selection


def balanced_sample(examples: Sequence[Example], count: int, *, labels: Sequence[str] | None, seed: int) -> list[Example]:
    """`count` examples drawn without replacement; with `labels`, each label's turn comes round equally often.

    Raises:
        EvaluationError: fewer examples than asked for.
    """
    if count > len(examples):
        raise EvaluationError(f"{count} examples were asked for and the training data has {len(examples)}. Ask for fewer.")
    rng = random.Random(seed)
    shuffled = rng.sample(list(examples), len(examples))
    if not labels:
        return shuffled[:count]
    piles = {label: [example for example in shuffled if example.completions[0] == label] for label in labels}
    drawn: list[Example] = []
    while len(drawn) < count and any(piles.values()):
        for label in rng.sample(list(piles), len(piles)):
            if piles[label] and len(drawn) < count:
                drawn.append(piles[label].pop())
    return drawn
