"""What several models made of the same questions, and what that cost: what a router learns from, and is judged on.

A table is CSV, TSV, JSONL or a JSON list, packed with gzip or not. Each row has

    question         the user's last turn
    MODEL            for each tier: whether that model got it right, from 0 to 1 (`true` and `false` do, too); empty where nobody knows
    cost:MODEL       optional: what that answer cost, in any unit that is the same for all

and may have `group`: rows of the same group are never learned from and judged on at the same time, such as two wordings of one question.
Columns of other models, and any others, are passed over.

Axes: N row, K tier (in their order, cheapest first).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from foreword.data.files import raw_rows
from foreword.errors import ConfigError, DataError

QUESTION, COST, GROUP = "question", "cost:", "group"
_WORDS = {"true": 1.0, "yes": 1.0, "false": 0.0, "no": 0.0}
_NOTHING = ("", "null", "none", "nan")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Table:
    """Rows that can be used.

    Attributes:
        success_NK: from 0 to 1; NaN where nobody knows.
        cost_NK: what each answer cost.
        groups: what keeps rows together.
    """

    tiers: tuple[str, ...]
    questions: tuple[str, ...]
    groups: tuple[str, ...]
    success_NK: np.ndarray
    cost_NK: np.ndarray

    def __len__(self) -> int:
        return len(self.questions)

    def __post_init__(self) -> None:
        if not len(self.questions) == len(self.groups) == len(self.success_NK) == len(self.cost_NK):
            raise DataError("A table's questions, groups, successes and costs differ in length. Give one of each for each row.")

    @property
    def digest(self) -> str:
        """Tells whether two tables are the same: SHA-256 of the questions, in their order, and of the tiers' names."""
        parts = "\0".join((*self.tiers, *self.questions)).encode("utf-8", "replace")
        return hashlib.sha256(parts).hexdigest()

    def places(self) -> np.ndarray:
        """A number from 0 to 1 for each row, drawn from its group: the same on every machine and whatever else is in the table."""
        hashes = [hashlib.sha256(group.encode("utf-8", "replace")).digest()[:8] for group in self.groups]
        return np.array([int.from_bytes(digest) / 2**64 for digest in hashes])

    def rows(self, chosen_N: np.ndarray) -> Table:
        """The rows of which `chosen_N` is true."""
        kept = np.flatnonzero(chosen_N)
        return Table(
            tiers=self.tiers,
            questions=tuple(self.questions[row] for row in kept),
            groups=tuple(self.groups[row] for row in kept),
            success_NK=self.success_NK[kept],
            cost_NK=self.cost_NK[kept],
        )

    def known(self) -> np.ndarray:
        """Of which rows N every tier's success is known."""
        return np.asarray(np.isfinite(self.success_NK).all(axis=1))


def read_table(path: Path, tiers: Sequence[str], *, costs: Sequence[float] | None = None) -> Table:
    """The table in a file.

    Args:
        tiers: models, cheapest first.
        costs: of a request for each tier, where the file has no costs.

    Raises:
        ConfigError: tiers or costs cannot be used together.
        DataError: the file, a row or a column cannot be used.
    """
    _check(tiers, costs)
    questions, groups, successes, paid = [], [], [], []
    for row in raw_rows(path):
        where = f"{path}, line {row.line}"
        if row.fields is None:
            raise DataError(f"{where}: {row.problem}")
        question = row.fields.get(QUESTION)
        if not isinstance(question, str) or not question.strip():
            raise DataError(f"{where}: there is no text under `{QUESTION}`. Each row has a question, and a column for each model.")
        questions.append(question)
        groups.append(str(row.fields.get(GROUP) or " ".join(question.split())))
        successes.append([_success(row.fields, tier, where) for tier in tiers])
        paid.append([_cost(row.fields, tier, where) if costs is None else cost for tier, cost in zip(tiers, costs or tiers, strict=True)])
    if not questions:
        raise DataError(f"{path} has no rows. Give a table with `{QUESTION}` and a column for each of {', '.join(tiers)}.")
    return Table(
        tiers=tuple(tiers),
        questions=tuple(questions),
        groups=tuple(groups),
        success_NK=np.array(successes, dtype=np.float64),
        cost_NK=np.array(paid, dtype=np.float64),
    )


def _check(tiers: Sequence[str], costs: Sequence[float] | None) -> None:
    if len(tiers) < 2 or len(set(tiers)) < len(tiers):
        raise ConfigError(f"A router chooses between two different models or more; got {', '.join(tiers) or 'none'}.")
    if costs is None:
        return
    if len(costs) != len(tiers):
        raise ConfigError(f"There are {len(tiers)} tiers and {len(costs)} costs. Give one for each, in the same order.")
    if any(not math.isfinite(cost) or cost < 0 for cost in costs):
        raise ConfigError("A cost is a number of 0 or more.")


def _success(fields: Mapping[str, object], tier: str, where: str) -> float:
    if tier not in fields:
        raise DataError(f"{where}: there is no column `{tier}`. There are: {', '.join(sorted(map(str, fields))[:20])}.")
    number = _number(fields[tier])
    if number is None:
        return math.nan
    if not 0 <= number <= 1:
        raise DataError(f"{where}: `{tier}` must be from 0 to 1, or true or false; got {str(fields[tier])[:40]!r}.")
    return number


def _cost(fields: Mapping[str, object], tier: str, where: str) -> float:
    name = f"{COST}{tier}"
    if name not in fields:
        raise DataError(f"{where}: there is no column `{name}`. Add it, or say what a request of each tier costs with --costs.")
    number = _number(fields[name])
    if number is None or not number >= 0 or math.isinf(number):
        raise DataError(f"{where}: `{name}` must be a number of 0 or more; got {str(fields[name])[:40]!r}.")
    return number


def _number(value: object) -> float | None:
    """A cell as a number; None for an empty one, and -1 for what is none, which every range refuses."""
    if value is None:
        return None
    if isinstance(value, bool | int | float):
        return -1.0 if math.isnan(value) else float(value)
    text = str(value).strip().lower()
    if text in _NOTHING:
        return None
    if text in _WORDS:
        return _WORDS[text]
    try:
        number = float(text)
    except ValueError:
        return -1.0
    return -1.0 if math.isnan(number) else number
