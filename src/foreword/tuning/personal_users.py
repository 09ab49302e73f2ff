"""Whose rows are whose: users, the names of their prefixes, and the rows that choose each one's checkpoint. Reaches no torch."""

from __future__ import annotations

import hashlib
import random
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from foreword.data.dataset import Dataset
from foreword.data.excerpt import excerpt
from foreword.errors import DataError
from foreword.prefix.header import check_name
from foreword.types import Example

DEV_SHARE = 0.1
LEAST_ROWS = 2
LEAST_ROWS_FOR_DEV = 5
DEV_LIMIT = 128
"""Dev prompts of one user; more cost time and change little."""
_SHOWN = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class UserData:
    """One user's rows.

    Attributes:
        name: the name of the user's prefix.
        train: what is learned from.
        dev: what chooses the checkpoint; `train` itself where there are too few rows to set any aside.
        sha256: hash of all the user's rows.
        seed: of everything that is drawn for this user; it follows from the run's seed and the user's id alone.
    """

    user: str
    name: str
    train: Dataset
    dev: Dataset
    sha256: str
    rows: int
    seed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Gathered:
    """The data by user.

    Attributes:
        users: those with enough rows, in the order of their first row.
        too_few: (user, rows) of the others.
        nobodys: how many rows name no user.
    """

    users: tuple[UserData, ...]
    too_few: tuple[tuple[str, int], ...]
    nobodys: int


def gather(dataset: Dataset, *, name: str, seed: int) -> Gathered:
    """Parts the data by user.

    Raises:
        DataError: no row names a user, or users' ids cannot name prefixes or would share one; the message names them.
    """
    rows: dict[str, list[Example]] = {}
    for example in dataset.examples:
        if example.user is not None:
            rows.setdefault(example.user, []).append(example)
    if not rows:
        raise DataError(
            f"No row of `{dataset.path}` names a user. Add a column or field `user`, or use `foreword tune` for one prefix for all."
        )
    enough = {user: examples for user, examples in rows.items() if len(examples) >= LEAST_ROWS}
    names = prefix_names(name, enough)
    return Gathered(
        users=tuple(_user_data(user, names[user], dataset.with_examples(examples), seed) for user, examples in enough.items()),
        too_few=tuple((user, len(examples)) for user, examples in rows.items() if user not in enough),
        nobodys=len(dataset) - sum(map(len, rows.values())),
    )


def prefix_name(name: str, user: str) -> str:
    """The name of a user's prefix: `NAME-USER`, the user's id in the letters that a store allows.

    Capitals become small, accents go, and each run of other characters becomes a hyphen.

    Raises:
        DataError: nothing is left of the id, or the whole is no name for a prefix.
    """
    bare = "".join(char for char in unicodedata.normalize("NFKD", user).lower() if not unicodedata.combining(char))
    part = re.sub(r"[^a-z0-9._-]+", "-", bare).strip("-")
    if not part:
        raise DataError(f"user {_quoted(user)} has no letter a to z and no digit. Give users ids made of those.")
    whole = f"{name}-{part}"
    try:
        check_name(whole)
    except ValueError as error:
        raise DataError(f"user {_quoted(user)}: {error}. Give the user a shorter id, or the prefixes a shorter name.") from None
    return whole


def prefix_names(name: str, users: Iterable[str]) -> dict[str, str]:
    """Each user's prefix name.

    Raises:
        DataError: an id cannot name a prefix, or two ids would give the same name; up to ten are listed.
    """
    names: dict[str, str] = {}
    owner: dict[str, str] = {}
    problems = []
    for user in users:
        try:
            own = prefix_name(name, user)
        except DataError as error:
            problems.append(str(error))
            continue
        if own in owner:
            problems.append(f"users {_quoted(owner[own])} and {_quoted(user)} would both be `{own}`. Give one of them another id.")
        owner.setdefault(own, user)
        names[user] = own
    if problems:
        more = [f"  and {len(problems) - _SHOWN:,} more"] if len(problems) > _SHOWN else []
        raise DataError("\n".join(["These users cannot have prefixes of their own:", *(f"  {line}" for line in problems[:_SHOWN]), *more]))
    return names


def user_seed(seed: int, user: str) -> int:
    """A seed of the user's own, so that what is drawn does not depend on who else is there."""
    return int.from_bytes(hashlib.sha256(f"{seed}\n{user}".encode()).digest()[:4], "big")


def _user_data(user: str, name: str, rows: Dataset, seed: int) -> UserData:
    own_seed = user_seed(seed, user)
    held_out = _held_out(rows.examples, own_seed)
    parts = [[example for row, example in enumerate(rows) if (row in held_out) is dev] for dev in (False, True)]
    train, dev = (rows.with_examples(part) for part in parts) if held_out else (rows, rows)
    return UserData(user=user, name=name, train=train, dev=dev, sha256=rows.sha256, rows=len(rows), seed=own_seed)


def _held_out(examples: Sequence[Example], seed: int) -> set[int]:
    """Rows to choose by: a tenth of the user's prompts, at least one where there are five rows; equal prompts stay together."""
    prompts: dict[object, list[int]] = {}
    for row, example in enumerate(examples):
        prompts.setdefault(example.messages, []).append(row)
    if len(examples) < LEAST_ROWS_FOR_DEV or len(prompts) < 2:
        return set()
    groups = list(prompts.values())
    random.Random(seed).shuffle(groups)
    wanted = min(DEV_LIMIT, max(1, round(DEV_SHARE * len(groups))))
    return {row for group in groups[:wanted] for row in group}


def _quoted(user: str) -> str:
    return f"`{excerpt(user)}`"
