"""Reference tasks: tasks that come with Foreword, made by a module each in `tasks/`. A task's name is the module's file name.

    class Settings(SourceSettings)                  its settings, each with a default
    def load(argument, settings) -> Task            argument: what stands after the colon, None when nothing does

As text a reference task reads `KEY`, `KEY:ARGUMENT`, or with settings `reasoning-gym:chain_sum(rows=50, max_terms=3)`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from foreword import registry
from foreword.data.files import raw_rows
from foreword.errors import DataError, EvaluationError
from foreword.prompting.named_settings import read_settings

if TYPE_CHECKING:
    from foreword.evaluate.task import Task

FOLDER = "foreword.evaluate.tasks"
_SPEC = re.compile(r"([a-z][a-z0-9-]*)(?::(.*?))?(?:\((\s*(?:[a-z][a-z0-9_]*\s*=.*)?)\))?", re.DOTALL)


class SourceSettings(BaseModel):
    """Base of every reference task's `Settings`: unknown names are refused.

    Attributes:
        rows: dev rows that are made or taken at most.
        train_rows: training rows likewise.
        seed: of everything that is drawn.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    rows: int = Field(default=100, ge=1, le=100_000)
    train_rows: int = Field(default=100, ge=1, le=100_000)
    seed: int = Field(default=0, ge=0)


def names() -> tuple[str, ...]:
    """The keys of all reference tasks."""
    return registry.names(FOLDER)


def is_one(spec: str) -> bool:
    """Whether a text names a reference task, rightly or wrongly told."""
    found = re.match(r"[a-z][a-z0-9-]*(?=[:(]|$)", spec)
    return found is not None and found[0] in names()


def load(spec: str) -> Task:
    """The reference task that a text means.

    Raises:
        RegistryError: there is none of that name.
        EvaluationError: a setting cannot be used, data are missing, or a package is not installed.
        DataError: rows of the data cannot be used.
    """
    found = _SPEC.fullmatch(spec.strip())
    if found is None:
        raise EvaluationError(f"`{spec[:120]}` is no task. Write a name, with settings such as `reasoning-gym:chain_sum(rows=50)`.")
    key, argument, told = found[1], found[2], found[3] or ""
    if argument == "":
        raise EvaluationError(f"`{spec[:120]}` has nothing after its colon. Drop the colon, or name what it is for.")
    module = registry.find(FOLDER, key)
    given, rest = read_settings(told)
    if rest:
        raise EvaluationError(f"`{rest[0][:60]}` in `{spec[:120]}` is no setting. Settings read NAME=VALUE.")
    try:
        settings = module.Settings(**given)
    except ValidationError as error:
        problems = "; ".join(f"`{'.'.join(map(str, part['loc']))}`: {part['msg']}" for part in error.errors(include_url=False))
        known = ", ".join(module.Settings.model_fields)
        raise EvaluationError(f"The task `{key}` cannot be set so: {problems}. Its settings: {known}.") from None
    return module.load(argument, settings)


def rows_of(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """The rows of a data file with their lines, for tasks whose rows have fields of their own.

    Raises:
        DataError: the file cannot be read, or a row of it is no JSON object.
    """
    for row in raw_rows(path):
        if row.fields is None:
            raise DataError(f"{path}:{row.line} cannot be read: {row.problem}")
        yield row.line, row.fields
