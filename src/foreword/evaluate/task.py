"""What is evaluated: data, an instruction, scorers, and what counts as a success. Read from a folder or made in memory.

A task folder holds a `task.toml`; every key but `train` and `dev` has a default:

    name = "support"                       # the folder's name
    kind = "classification"                # what the rows are: text+label is a classification, the rest generation
    instruction = "Name the queue."        # none
    train = "train.jsonl"                  # relative to the folder, or hf:NAME
    dev = "dev.jsonl"
    labels = ["billing", "login"]          # those of the training rows; also names for labels 0, 1, ...
    scorers = ["accuracy", "macro-f1"]     # by kind
    primary = "macro-f1"                   # by kind; the first scorer where that one is not listed
    success = { scorer = "accuracy", at_least = 1.0 }
    max_new_tokens = 16                    # by kind
    verifier = "json-object"               # none; what strategies may check answers with
    tools = ["calculator"]                 # none; what strategies may call

Some tasks come with Foreword: `task_source.py` says how they are named.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from foreword import registry
from foreword.data.dataset import Dataset, Kind
from foreword.data.hub import SCHEME
from foreword.data.reading import read
from foreword.errors import EvaluationError, RegistryError
from foreword.evaluate import scorer, task_source
from foreword.evaluate.scorer import Score
from foreword.prompting import verifier

FILE_NAME = "task.toml"
TOOLS_FOLDER = "foreword.agent.tools"
NAMED_TASK_FOLDERS = ("tasks", "examples")
"""Where a task given by name is looked for, under the working folder."""


class SuccessRule(BaseModel):
    """A row is a success when `scorer` gives it `at_least` this much."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    scorer: str
    at_least: float


class TaskFile(BaseModel):
    """The content of a `task.toml`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    train: str = Field(min_length=1)
    dev: str = Field(min_length=1)
    name: str | None = Field(default=None, min_length=1)
    kind: Kind | None = None
    instruction: str | None = None
    labels: tuple[str, ...] | None = Field(default=None, min_length=2)
    scorers: tuple[str, ...] | None = Field(default=None, min_length=1)
    primary: str | None = None
    success: SuccessRule | None = None
    max_new_tokens: int | None = Field(default=None, ge=1)
    verifier: str | None = None
    tools: tuple[str, ...] = ()

    @field_validator("labels", "scorers", "tools")
    @classmethod
    def _no_repeats(cls, names: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if names and len(set(names)) < len(names):
            raise ValueError(f"has `{next(name for name in names if names.count(name) > 1)}` twice")
        return names


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """Something that contenders are compared on. Make it with `make_task` or `load_task`, which fill in defaults.

    Attributes:
        name: how tables call it.
        kind: `classification` answers are one of `labels`; `generation` answers are free text.
        instruction: what stands before every input, if anything.
        train: what contenders may learn from.
        dev: what they are judged on.
        labels: the label texts of a classification, else None.
        scorers: keys of all scorers to run, `primary` and the success rule's among them.
        primary: the scorer that the table is ordered by.
        success: what a successful answer is; cost per successful task counts these.
        max_new_tokens: bound of an answer's length.
        verifier: key in `foreword.prompting.verifiers`: what strategies may check answers with. It knows no more than their users would.
        tools: keys in `foreword.agent.tools`: what strategies may call.

    Raises:
        EvaluationError: the fields do not fit each other.
    """

    name: str
    kind: Kind
    instruction: str | None
    train: Dataset
    dev: Dataset
    labels: tuple[str, ...] | None
    scorers: tuple[str, ...]
    primary: str
    success: SuccessRule
    max_new_tokens: int
    verifier: str | None = None
    tools: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for role, data in (("training", self.train), ("dev", self.dev)):
            if data.kind != self.kind:
                raise EvaluationError(
                    f"Task `{self.name}` is a {self.kind}, and its {role} data `{data.path}` is a {data.kind}. "
                    "Rows of a classification have `text` and `label`; mend the rows or `kind`."
                )
        missing = [name for name in (self.primary, self.success.scorer) if name not in self.scorers]
        if missing:
            raise EvaluationError(f"Task `{self.name}` uses the scorer `{missing[0]}`, which is not among `scorers`. Add it there.")
        self._check_scorers()
        self._check_names(verifier.FOLDER, () if self.verifier is None else (self.verifier,))
        self._check_names(TOOLS_FOLDER, self.tools)

    def _check_names(self, folder: str, names: tuple[str, ...]) -> None:
        known = registry.names(folder) if names else ()
        unknown = [name for name in names if name not in known]
        if unknown:
            kind = folder.rsplit(".", 1)[-1]
            raise EvaluationError(f"Task `{self.name}`: there is no `{unknown[0]}` among {kind}. Known: {', '.join(known)}.")

    def _check_scorers(self) -> None:
        try:
            needed = {name: scorer.needs([name]) for name in self.scorers}
            judges_rows = scorer.judges_rows(self.success.scorer)
        except RegistryError as error:
            raise EvaluationError(f"Task `{self.name}`: {error}") from error
        unfit = [name for name, fields in needed.items() if "label_log_probs" in fields and not self.labels]
        if unfit:
            raise EvaluationError(f"Task `{self.name}` has no labels, which the scorer `{unfit[0]}` needs. Remove it from `scorers`.")
        if not judges_rows:
            raise EvaluationError(
                f"Task `{self.name}` calls a row a success by `{self.success.scorer}`, which gives single rows no number for which more is "
                "better. Use one that does, such as accuracy, exact-match, rouge-l or slots."
            )

    @property
    def needs(self) -> frozenset[str]:
        """Fields of `Outcome` beyond answers, references and prompts that the scorers read."""
        return scorer.needs(self.scorers)

    def successes(self, scores: Mapping[str, Score]) -> np.ndarray:
        """Shape (examples,), bool: which rows meet the success rule, from the scores of one contender by scorer."""
        per_example = scores[self.success.scorer].per_example
        assert per_example is not None, "the success scorer judges rows; checked when the task is made"
        return per_example >= self.success.at_least


@dataclass(frozen=True, slots=True, kw_only=True)
class _Defaults:
    scorers: tuple[str, ...]
    primary: str
    success: SuccessRule
    max_new_tokens: int


_DEFAULTS: Mapping[Kind, _Defaults] = {
    "classification": _Defaults(
        scorers=("accuracy", "macro-f1"), primary="macro-f1", success=SuccessRule(scorer="accuracy", at_least=1.0), max_new_tokens=16
    ),
    "generation": _Defaults(
        scorers=("bleu", "rouge-l"), primary="bleu", success=SuccessRule(scorer="rouge-l", at_least=0.5), max_new_tokens=128
    ),
}


def make_task(
    name: str,
    *,
    train: Dataset,
    dev: Dataset,
    kind: Kind | None = None,
    instruction: str | None = None,
    scorers: Sequence[str] | None = None,
    primary: str | None = None,
    success: SuccessRule | None = None,
    max_new_tokens: int | None = None,
    verifier: str | None = None,
    tools: Sequence[str] = (),
) -> Task:
    """A task from data in memory; whatever is left out follows from the kind of the training data.

    The primary and the success rule's scorer are added to `scorers` where they are missing.

    Raises:
        EvaluationError: the parts do not fit each other.
    """
    kind = kind or train.kind
    defaults = _DEFAULTS[kind]
    chosen = tuple(scorers) if scorers else defaults.scorers
    success = success or defaults.success
    primary = primary or (defaults.primary if defaults.primary in chosen else chosen[0])
    return Task(
        name=name,
        kind=kind,
        instruction=instruction,
        train=train,
        dev=dev,
        labels=train.labels,
        scorers=tuple(dict.fromkeys((*chosen, primary, success.scorer))),
        primary=primary,
        success=success,
        max_new_tokens=max_new_tokens or defaults.max_new_tokens,
        verifier=verifier,
        tools=tuple(tools),
    )


def load_task(path_or_name: str | os.PathLike[str], *, train: str | os.PathLike[str] | None = None, instruction: str | None = None) -> Task:
    """Reads a task: a folder with a `task.toml`, that file, a name, or one file of dev rows together with `train`.

    A name is looked for as `tasks/NAME` and `examples/NAME` under the working folder, and then among the tasks that come with Foreword.

    Raises:
        EvaluationError: there is no such task, its file is broken, or a data file is missing.
        DataError: rows of the data cannot be used.
    """
    spec = os.fspath(path_or_name)
    if _found(spec) is None and task_source.is_one(spec):
        if train is not None or instruction is not None:
            raise EvaluationError(f"`{spec}` brings its own training rows and instruction. Leave `train` and `instruction` out.")
        return task_source.load(spec)
    path = _find(path_or_name)
    if path.name != FILE_NAME:
        if train is None:
            raise EvaluationError(
                f"`{path}` is a file of rows to be judged on; training and few-shot prompts need others. "
                f"Give the training rows as well, or a folder with a `{FILE_NAME}`."
            )
        name = path.name.split(".", 1)[0]
        return _from_file(TaskFile(name=name, train=os.fspath(train), dev=str(path), instruction=instruction), Path())
    if train is not None or instruction is not None:
        raise EvaluationError(f"`{path}` says itself what its training rows and instruction are. Change them there.")
    return _from_file(_parse(path), path.parent)


def _candidates(path: Path) -> list[Path]:
    return [path, *(Path(folder) / path for folder in NAMED_TASK_FOLDERS)]


def _found(path_or_name: str | os.PathLike[str]) -> Path | None:
    path = Path(path_or_name)
    if path.is_file():
        return path
    return next((candidate / FILE_NAME for candidate in _candidates(path) if (candidate / FILE_NAME).is_file()), None)


def _find(path_or_name: str | os.PathLike[str]) -> Path:
    found = _found(path_or_name)
    if found is not None:
        return found
    candidates = _candidates(Path(path_or_name))
    looked = ", ".join(f"`{candidate / FILE_NAME}`" for candidate in candidates)
    known = sorted({found.parent.name for folder in NAMED_TASK_FOLDERS for found in Path(folder).glob(f"*/{FILE_NAME}")})
    hint = f" Tasks here: {', '.join(known)}." if known else ""
    ours = f" With Foreword come: {', '.join(task_source.names())}."
    raise EvaluationError(f"There is no task `{path_or_name}`: neither a file of that name nor {looked}.{hint}{ours}")


def _parse(path: Path) -> TaskFile:
    try:
        return TaskFile.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except ValidationError as error:
        lines = [f"  {'.'.join(map(str, part['loc']))}: {part['msg']}" for part in error.errors()]
        raise EvaluationError(
            f"`{path}` cannot be used:\n" + "\n".join(lines) + f"\nKeys are: {', '.join(TaskFile.model_fields)}."
        ) from error
    except UnicodeDecodeError as error:
        raise EvaluationError(f"`{path}` is not UTF-8 (byte {error.start}). Save it as UTF-8.") from error
    except tomllib.TOMLDecodeError as error:
        raise EvaluationError(f"`{path}` is not valid TOML: {error}.") from error
    except OSError as error:
        raise EvaluationError(f"`{path}` cannot be read: {error.strerror or error}.") from error


def _from_file(settings: TaskFile, folder: Path) -> Task:
    labels = settings.labels
    # Integer labels are indices into names; labels that are numbers themselves must not be taken for names of other numbers.
    label_names = None if labels is None or any(label.isdecimal() for label in labels) else labels
    train = read(_source(settings.train, folder, "train"), labels=labels, label_names=label_names)
    dev = read(_source(settings.dev, folder, "dev"), labels=train.labels, label_names=label_names)
    return make_task(
        settings.name or folder.resolve().name,
        train=train,
        dev=dev,
        kind=settings.kind,
        instruction=settings.instruction,
        scorers=settings.scorers,
        primary=settings.primary,
        success=settings.success,
        max_new_tokens=settings.max_new_tokens,
        verifier=settings.verifier,
        tools=settings.tools,
    )


def _source(name: str, folder: Path, key: str) -> str:
    if name.startswith(SCHEME):
        return name
    path = folder / name
    if not path.is_file():
        raise EvaluationError(
            f"`{key}` of the task is `{name}`, and there is no file `{path}`. Paths start at the folder of `{FILE_NAME}`."
        )
    return str(path)
