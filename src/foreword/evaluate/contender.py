"""What a contender is: one way to make a frozen (or not so frozen) model good at a task. They live in `contenders/`.

A contender module is found by its file name (`few_shot.py` is `few-shot`) and has

    check(argument) -> None            raises ConfigError when what stands after the colon cannot be used
    prepare(context) -> Prepared       trains or assembles whatever it needs, inside the budget
    WEIGHTS_DTYPE = "float32"          optional: the dtype it needs the weights in, whatever was asked for
    TRAINS = False                     optional: whether it needs an engine that trains or takes a prefix; True where it does not say

Every strategy of `foreword.prompting.strategies` is a contender too, as `strategy:SPEC`; where no contender has its name, `SPEC` alone will
do: `cot`, `tot(beam=3)`.

This file reaches no torch.
"""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal, Protocol

from foreword import registry
from foreword.errors import ConfigError, EvaluationError, RegistryError
from foreword.prompting import strategy
from foreword.types import Example, Message

if TYPE_CHECKING:
    from foreword.data.dataset import Dataset
    from foreword.evaluate.task import Task
    from foreword.prefix.artifact import Prefix

FOLDER = "foreword.evaluate.contenders"
STRATEGY = "strategy"
"""The contender that runs a strategy."""
_NAME = re.compile(r"[a-z][a-z0-9-]*")
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
        budget_calls: calls of the model that one answer may take at most; None is the bound that strategies have anyway.
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
    budget_calls: int | None = None

    def now(self) -> float:
        """Seconds on the budget's clock."""
        return time.perf_counter() if self.clock == "wall" else time.process_time()


class Solver(Protocol):
    """Answers conversations in a way of its own, with as many calls of the model as that takes."""

    def solve(self, conversations: Sequence[Sequence[Message]], *, take: Callable[[int, strategy.Solved], None]) -> None:
        """One answer per conversation, all at once; `take` is given each with its conversation's place, as they come."""
        ...

    def warm_up(self) -> None:
        """Has the model answer once, unmeasured: its first answer pays for what later ones find ready."""
        ...

    def close(self) -> None:
        """Ends what was started for it."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A contender that is ready to be measured.

    Attributes:
        engine: answers the conversations, with `prefix` before them where there is one.
        conversations: the turns that are sent for an example.
        solver: answers in place of the engine's own `generate`; closed when everything is measured.
        trained_parameters: numbers that training was free to change.
        artifact_bytes: size of what has to be kept per task (0: nothing but text).
        training_seconds: on the budget's clock.
        notes: what a reader of the table has to know: rates chosen, rows left out.
    """

    engine: Any
    conversations: Conversations
    solver: Solver | None = None
    prefix: Prefix | None = None
    trained_parameters: int = 0
    artifact_bytes: int = 0
    training_seconds: float = 0.0
    notes: tuple[str, ...] = ()


def parse(spec: str) -> Entry:
    """Finds the contender that `spec` names and checks its argument, before anything is trained.

    Raises:
        RegistryError: neither a contender nor a strategy has that name.
        ConfigError: the argument cannot be used.
    """
    spec = spec.strip()
    named = _NAME.match(spec)
    name = named[0] if named else spec
    rest = spec[len(name) :]
    if name in strategy.names() and (rest.startswith("(") or not (rest or name in registry.names(FOLDER))):
        return _of_strategy(spec, spec)
    key, colon, rest = spec.partition(":")
    if colon and not rest:
        raise ConfigError(f"`{spec}` ends in a colon with nothing after it. Drop the colon or name what it is for.")
    if key == STRATEGY and colon:
        alone = rest.strip() not in registry.names(FOLDER)
        return _of_strategy(rest.strip() if alone else spec, rest.strip())
    try:
        module = registry.find(FOLDER, key)
    except RegistryError as error:
        raise RegistryError(f"{error} Strategies: {', '.join(strategy.names())}.") from None
    argument = rest if colon else None
    module.check(argument)
    return Entry(spec=spec, key=key, argument=argument, module=module)


def _of_strategy(spec: str, argument: str) -> Entry:
    module = registry.find(FOLDER, STRATEGY)
    module.check(argument)
    return Entry(spec=spec, key=STRATEGY, argument=argument, module=module)


def trains(module: ModuleType) -> bool:
    """Whether the contender needs an engine that can train or take a prefix."""
    return getattr(module, "TRAINS", True)


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
