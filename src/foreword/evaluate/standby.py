"""What stands by for a strategy on a task: examples of the training rows, the task's verifier and tools, an embedder where there is one."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

from foreword import registry
from foreword.errors import ConfigError, EvaluationError, ModelError, RegistryError
from foreword.evaluate.contender import FOLDER, balanced_sample, trains, with_instruction
from foreword.prompting import strategy, verifier
from foreword.prompting.strategy import Budget, Resources
from foreword.prompting.template import Shot
from foreword.prompting.tool import Tool, Tools
from foreword.types import Completion, Message, Sampling, Usage

if TYPE_CHECKING:
    from foreword.evaluate.task import Task
    from foreword.retrieval.embedder import Embedder

TOOLS = "foreword.agent.tools"
MOST_SHOTS = 256
FEW_SHOTS = 8
TRIED_CALLS = 8
"""Calls of a model that says nothing of use, after which a strategy counts as one that can run."""


def resources_of(task: Task, *, seed: int) -> Resources:
    """What strategies may use on a task. Dev rows are not looked at.

    Raises:
        EvaluationError: the task names a verifier or a tool that there is not.
    """
    rows = list(task.train)
    drawn = balanced_sample(rows, min(MOST_SHOTS, len(rows)), labels=task.labels, seed=seed)
    try:
        verify = None if task.verifier is None else verifier.get(task.verifier)
    except RegistryError as error:
        raise EvaluationError(f"Task `{task.name}`: {error}") from error
    return Resources(
        shots=tuple(Shot(user=example.prompt, assistant=example.completions[0]) for example in drawn),
        verify=verify,
        tools=Tools.of(_tool(task, name) for name in task.tools),
        embedder=_embedder(),
    )


def every(task: Task, *, seed: int = 0) -> tuple[str, ...]:
    """Every contender that needs no training and every strategy that can run on the task with its defaults, by name.

    Whether a strategy can is found by letting it try on the first dev row, with a model that has nothing to say: one that lacks something
    that it cannot do without says so at once.
    """
    named = [name for name in registry.names(FOLDER) if name != "strategy" and not trains(registry.find(FOLDER, name))]
    contenders = []
    for name in named:
        if name != "few-shot":
            contenders.append(name)
        elif len(task.train):
            contenders.append(f"{name}:{min(FEW_SHOTS, len(task.train))}")
    resources = resources_of(task, seed=seed)
    return (*contenders, *(name for name in strategy.names() if name not in named and _can_run(name, task, resources)))


def _can_run(name: str, task: Task, resources: Resources) -> bool:
    conversation = with_instruction(task.instruction, task.dev.examples[0])
    try:
        asyncio.run(strategy.solve(strategy.get(name), conversation, _Silent(), resources=resources, budget=Budget(calls=TRIED_CALLS)))
    except ConfigError:
        return False
    return True


class _Silent:
    """Meets `Model`: whatever it is asked, it does not know."""

    name = "silent"

    async def answer(self, conversation: Sequence[Message], sampling: Sampling) -> Completion:
        return Completion(
            text="I do not know.", token_ids=(), usage=Usage(prompt_tokens=0, completion_tokens=0), finish_reason="stop", seconds=0.0
        )

    async def close(self) -> None:
        """Nothing was started."""


def _tool(task: Task, name: str) -> Tool:
    try:
        return registry.find(TOOLS, name).make()
    except TypeError as error:
        raise EvaluationError(
            f"Task `{task.name}` names the tool `{name}`, which needs settings that a task cannot give. Name another, or leave it out."
        ) from error


def _embedder() -> Embedder | None:
    from foreword.retrieval import embedder

    try:
        return embedder.get()
    except (ModelError, RegistryError):
        return None
