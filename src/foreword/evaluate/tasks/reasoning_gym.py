"""Problems that the package `reasoning-gym` makes without end, judged by its own verifiers. `reasoning-gym:chain_sum`.

Settings beside the common ones are the problem's own: `reasoning-gym:chain_sum(max_terms=3)`. A dev row has two references: the answer that
the package gives, for readers, and the whole entry as JSON, which its verifier needs.
"""

from __future__ import annotations

import json
from typing import Any

from pydantic import ConfigDict, Field

from foreword.data.dataset import Dataset
from foreword.errors import EvaluationError
from foreword.evaluate.scorer import require
from foreword.evaluate.task import SuccessRule, Task, make_task
from foreword.evaluate.task_source import SourceSettings
from foreword.types import Example, Message

INSTRUCTION = "Solve the problem. End with a line that begins with `Answer:` and has the answer in the form that the problem asks for."
MOST_NEW_TOKENS = 256


class Settings(SourceSettings):
    """The common ones; others go to the problem, which refuses those that it has not."""

    model_config = ConfigDict(extra="allow", frozen=True)

    rows: int = Field(default=50, ge=1, le=100_000)
    train_rows: int = Field(default=50, ge=1, le=100_000)


def load(argument: str | None, settings: Settings) -> Task:
    """The task.

    Raises:
        EvaluationError: the package is not installed, it has no such problem, a setting is not one of the problem's, or its entries cannot
            be kept as JSON.
    """
    gym = require("reasoning_gym", package="reasoning-gym", scorer="reasoning-gym")
    if argument is None:
        raise EvaluationError("`reasoning-gym` needs the name of a problem: `reasoning-gym:chain_sum`.")
    entries = _entries(gym, argument, settings)
    # Each entry is drawn with the seed plus its number, so that only later entries of the same draw are sure to be others.
    dev, train = entries[: settings.rows], [entry for entry in entries[settings.rows :] if entry["answer"] is not None]
    if not train:
        raise EvaluationError(f"`reasoning-gym:{argument}` gives no answers to learn from, only a verifier. Take another problem.")
    return make_task(
        argument.replace("_", "-"),
        train=Dataset.of([_example(entry, (str(entry["answer"]),)) for entry in train]),
        dev=Dataset.of([_example(entry, _references(gym, argument, entry)) for entry in dev]),
        instruction=INSTRUCTION,
        scorers=("reasoning-gym",),
        primary="reasoning-gym",
        success=SuccessRule(scorer="reasoning-gym", at_least=1.0),
        max_new_tokens=MOST_NEW_TOKENS,
        tools=("calculator",),
    )


def _entries(gym: Any, name: str, settings: Settings) -> list[dict[str, Any]]:
    size = settings.rows + settings.train_rows
    try:
        made = gym.create_dataset(name, seed=settings.seed, size=size, **(settings.model_extra or {}))
        return [made[number] for number in range(size)]
    except ValueError as error:
        raise EvaluationError(f"`reasoning-gym:{name}` cannot be made: {error}. Known problems: {_known(name)}.") from error
    except (TypeError, AssertionError) as error:
        raise EvaluationError(f"`reasoning-gym:{name}` cannot be set so: {error}. Its settings are those of the package.") from error


def _known(name: str) -> str:
    """Names of problems, those that begin alike first."""
    import importlib

    names = sorted(importlib.import_module("reasoning_gym.factory").DATASETS)
    near = [known for known in names if known[:3] == name[:3]]
    return ", ".join(dict.fromkeys((*near, *names[:10]))) + ", ..."


def _references(gym: Any, name: str, entry: dict[str, Any]) -> tuple[str, ...]:
    """The answer, and the entry as JSON; the package's verifier must say the same of the answer with both.

    Raises:
        EvaluationError: the entry does not survive JSON.
    """
    judge = gym.get_score_answer_fn(name)
    problem = EvaluationError(f"Entries of `reasoning-gym:{name}` hold what JSON does not keep, and cannot be compared on. Take another.")
    try:
        kept = json.dumps({"problem": name, "entry": entry})
        if entry["answer"] is not None and judge(entry["answer"], json.loads(kept)["entry"]) != judge(entry["answer"], entry):
            raise problem
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise problem from error
    return (kept,) if entry["answer"] is None else (str(entry["answer"]), kept)


def _example(entry: dict[str, Any], completions: tuple[str, ...]) -> Example:
    return Example(messages=(Message(role="user", content=str(entry["question"])),), completions=completions)
