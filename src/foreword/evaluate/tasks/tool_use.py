"""Calls of functions: rows of the Berkeley Function-Calling Leaderboard (Patil et al. 2025). `tool-use:FOLDER`, or one file.

A row has `question` (one conversation), `function` (what may be called, with a schema each) and `ground_truth`: for each call that is
wanted `{name: {argument: [accepted values]}}`; null or nothing where no function fits. Rows of several turns are not taken. The functions
stand in the user's turn, so that any way to ask will do. One row in five is for training, with the first accepted values as its answer.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from foreword.data.dataset import Dataset
from foreword.errors import DataError, EvaluationError
from foreword.evaluate.task import SuccessRule, Task, make_task
from foreword.evaluate.task_source import SourceSettings, rows_of
from foreword.types import Example, Message, Role

INSTRUCTION = (
    "Answer with the calls of functions that the request needs, as one JSON list and nothing else: "
    '[{"name": "function_name", "arguments": {"argument": "value"}}]. Answer [] where none of the functions fits.'
)
MOST_NEW_TOKENS = 256
TRAIN_SHARE = 5
"""One row in so many is for training."""
SUFFIXES = (".jsonl", ".jsonl.gz")
SEVERAL_TURNS = "multi_turn"
_ROLES: tuple[Role, ...] = ("system", "user", "assistant")


class Settings(SourceSettings):
    """All rows that there are, where they are not limited."""

    rows: int = Field(default=100_000, ge=1)
    train_rows: int = Field(default=100_000, ge=1)


def load(argument: str | None, settings: Settings) -> Task:
    """The task.

    Raises:
        EvaluationError: no folder was named, it has no such rows, or too few.
        DataError: a row is not of this form.
    """
    if argument is None:
        raise EvaluationError("`tool-use` needs the folder of its rows, or one of its files: `tool-use:FOLDER`.")
    rows = [(path, *row) for path in _files(Path(argument)) for row in rows_of(path)]
    if len(rows) < TRAIN_SHARE:
        raise EvaluationError(f"`tool-use:{argument}` has {len(rows)} rows; it needs {TRAIN_SHARE} or more.")
    train = [_example(*row, shown=True) for row in rows[::TRAIN_SHARE]]
    dev = [_example(*row, shown=False) for number, row in enumerate(rows) if number % TRAIN_SHARE]
    return make_task(
        "tool-use",
        train=Dataset.of(train).shuffled(settings.seed).limit(settings.train_rows),
        dev=Dataset.of(dev).shuffled(settings.seed).limit(settings.rows),
        instruction=INSTRUCTION,
        scorers=("tool-call",),
        primary="tool-call",
        success=SuccessRule(scorer="tool-call", at_least=1.0),
        max_new_tokens=MOST_NEW_TOKENS,
    )


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    found = sorted(file for file in path.glob("*") if file.name.endswith(SUFFIXES) and not file.name.startswith(SEVERAL_TURNS))
    if not found:
        raise EvaluationError(f"`tool-use` needs a folder of .jsonl or .jsonl.gz files, or one of them; {path} is none.")
    return found


def _example(path: Path, line: int, fields: Mapping[str, Any], *, shown: bool) -> Example:
    """One row; `shown` gives a right answer as it would be written, otherwise the answers that are accepted as JSON."""
    try:
        conversation = fields["question"][0]
        wanted = fields["ground_truth"] or []
        messages = tuple(_messages(conversation, fields["function"]))
        answer = json.dumps(list(_written(wanted)) if shown else wanted)
    except (KeyError, IndexError, TypeError, AttributeError, ValueError) as error:
        raise DataError(
            f"{path}:{line} is no row of function calls: it needs `question`, `function` and `ground_truth` ({type(error).__name__}: "
            f"{error})."
        ) from error
    return Example(messages=messages, completions=(answer,), line=line)


def _messages(conversation: Sequence[Mapping[str, Any]], functions: Sequence[Mapping[str, Any]]) -> Iterator[Message]:
    *before, last = conversation
    for turn in (*before, last):
        if turn["role"] not in _ROLES:
            raise ValueError(f"a turn of `{turn['role']}`")
        told = "\n".join(json.dumps(function, ensure_ascii=False) for function in functions)
        content = f"Functions:\n{told}\n\nRequest: {turn['content']}" if turn is last else str(turn["content"])
        yield Message(role=turn["role"], content=content)
    if last["role"] != "user":
        raise ValueError("the last turn is not the user's")


def _written(wanted: Sequence[Mapping[str, Mapping[str, Sequence[Any]]]]) -> Iterator[dict[str, Any]]:
    """Calls as they would be written, without the arguments that may be left out."""
    for call in wanted:
        for name, arguments in call.items():
            yield {"name": name, "arguments": _given(arguments)}


def _given(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Each argument's first accepted value; where an empty text is accepted, or nothing is, the argument may be left out."""
    return {name: _plain(accepted[0]) for name, accepted in arguments.items() if accepted and "" not in accepted}


def _plain(value: Any) -> Any:
    """Inside an object, every value is again a list of accepted ones."""
    if isinstance(value, Mapping):
        return _given(value)
    return [_plain(part) for part in value] if isinstance(value, list) else value
