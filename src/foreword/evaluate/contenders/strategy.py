"""Strategy: the frozen model is asked once or many times, in a way of `foreword.prompting.strategies`; `strategy:tot(beam=3)`.

All rows are under way together on one event loop, over the engine's serving form. A strategy gets training rows as examples, the task's
verifier and tools, and an embedder where one is installed; never a dev row's wanted answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from foreword.errors import ConfigError
from foreword.evaluate.contender import Context, Prepared, with_instruction
from foreword.evaluate.standby import resources_of
from foreword.prompting import model as models
from foreword.prompting.strategy import Budget, Resources, Solved, Strategy, parse, solve, together
from foreword.types import Message, Sampling

TRAINS = False
ROWS_AT_ONCE = 64
REASONING_TOKENS = 128
"""Tokens that a strategy may write where the task's own bound is for a label alone."""


def check(argument: str | None) -> None:
    """Raises ConfigError or RegistryError unless the argument is a strategy."""
    if argument is None:
        raise ConfigError("`strategy:` needs a strategy after the colon, e.g. `strategy:self-consistency(n=10)`.")
    parse(argument)


def prepare(context: Context) -> Prepared:
    """Nothing to train.

    Raises:
        EvaluationError: the task names a tool that cannot be made.
    """
    assert context.argument is not None, "checked when the contender was named"
    strategy = parse(context.argument)
    task = context.task
    tokens = task.max_new_tokens if task.kind == "generation" else max(task.max_new_tokens, REASONING_TOKENS)
    solver = StrategySolver(
        context.engine,
        strategy,
        resources=resources_of(task, seed=context.seed),
        sampling=Sampling(max_new_tokens=tokens, seed=context.seed),
        budget=Budget() if context.budget_calls is None else Budget(calls=context.budget_calls),
    )
    return Prepared(
        engine=context.engine,
        conversations=partial(with_instruction, task.instruction),
        solver=solver,
        notes=(f"strategy {strategy}, at most {solver.budget.calls} calls an answer",),
    )


class StrategySolver:
    """Meets `Solver`: one strategy over one engine, on an event loop of its own."""

    def __init__(self, engine: Any, strategy: Strategy, *, resources: Resources, sampling: Sampling, budget: Budget) -> None:
        self.budget = budget
        self._strategy, self._resources, self._sampling = strategy, resources, sampling
        self._runner = asyncio.Runner()
        self._model = self._runner.run(_of(engine))

    def solve(self, conversations: Sequence[Sequence[Message]], *, take: Callable[[int, Solved], None]) -> None:
        """One answer per conversation; see `Solver.solve`.

        Raises:
            ConfigError: the strategy lacks something that it cannot do without.
        """
        self._runner.run(self._solve(conversations, take))

    def warm_up(self) -> None:
        """One call for one token."""
        self._runner.run(self._model.answer((Message(role="user", content="Hello"),), Sampling(max_new_tokens=1)))

    def close(self) -> None:
        """Ends the engine's serving form and the loop."""
        try:
            self._runner.run(self._model.close())
        finally:
            self._runner.close()

    async def _solve(self, conversations: Sequence[Sequence[Message]], take: Callable[[int, Solved], None]) -> None:
        room = asyncio.Semaphore(ROWS_AT_ONCE)

        async def one(place: int, conversation: Sequence[Message]) -> None:
            async with room:
                solved = await solve(
                    self._strategy,
                    conversation,
                    self._model,
                    resources=self._resources,
                    sampling=self._sampling,
                    budget=self.budget,
                )
            take(place, solved)

        await together([one(place, conversation) for place, conversation in enumerate(conversations)])


async def _of(engine: Any) -> models.Model:
    return models.of(engine)
