"""GSM8K (Cobbe et al. 2021): grade-school problems in words, judged by the number at the end. `gsm8k:FOLDER`.

The folder has `train.jsonl` and `dev.jsonl`, each also as `.gz`, with `question` and `answer` as they are published. The calculator's marks
(`<<48/2=24>>`) are taken out of the answers, which otherwise stay as they are: the way to the number, and `#### 72`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from pydantic import Field

from foreword.data.dataset import Dataset
from foreword.errors import DataError, EvaluationError
from foreword.evaluate.task import SuccessRule, Task, make_task
from foreword.evaluate.task_source import SourceSettings, rows_of
from foreword.types import Example, Message

INSTRUCTION = "Solve the problem step by step. End with a line that has #### and then the answer as a number."
MOST_NEW_TOKENS = 256
_CALCULATED = re.compile(r"<<[^<>]*>>")


class Settings(SourceSettings):
    """All dev rows that there are, where `rows` is not told."""

    rows: int = Field(default=100_000, ge=1)
    train_rows: int = Field(default=1_000, ge=1)


def load(argument: str | None, settings: Settings) -> Task:
    """The task.

    Raises:
        EvaluationError: no folder was named, or it lacks a file.
        DataError: a row has no question, or no answer that ends with a number.
    """
    if argument is None:
        raise EvaluationError("`gsm8k` needs the folder of its data, with train.jsonl and dev.jsonl: `gsm8k:FOLDER`.")
    folder = Path(argument)
    dev = list(_examples(_file(folder, "dev")))
    train = Dataset.of(list(_examples(_file(folder, "train")))).shuffled(settings.seed)
    return make_task(
        "gsm8k",
        train=train.limit(settings.train_rows),
        dev=Dataset.of(dev, path=str(folder)).limit(settings.rows),
        instruction=INSTRUCTION,
        scorers=("number",),
        primary="number",
        success=SuccessRule(scorer="number", at_least=1.0),
        max_new_tokens=MOST_NEW_TOKENS,
        tools=("calculator",),
    )


def _file(folder: Path, part: str) -> Path:
    candidates = [folder / f"{part}.jsonl", folder / f"{part}.jsonl.gz"]
    found = next((path for path in candidates if path.is_file()), None)
    if found is None:
        raise EvaluationError(f"`gsm8k` needs {candidates[0]} (or .gz), and there is no such file. Name the folder that has it.")
    return found


def _examples(path: Path) -> Iterator[Example]:
    for line, fields in rows_of(path):
        question, answer = fields.get("question"), fields.get("answer")
        if not isinstance(question, str) or not isinstance(answer, str) or "####" not in answer:
            raise DataError(f"{path}:{line} needs `question`, and `answer` that ends with `#### NUMBER`.")
        yield Example(
            messages=(Message(role="user", content=question.strip()),), completions=(_CALCULATED.sub("", answer).strip(),), line=line
        )
