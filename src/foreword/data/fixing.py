"""Changes to data that are safe to make: removing exact repetitions, splitting without leakage, writing whole files or none."""

from __future__ import annotations

import gzip
import json
import logging
import os
import random
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from foreword.data.checking import conversation_text, duplicate_rows
from foreword.data.dataset import Dataset
from foreword.data.similarity import NEAR, groups, resemblance
from foreword.errors import ConfigError, DataError
from foreword.types import Example

logger = logging.getLogger(__name__)


def dedupe(dataset: Dataset, *, against: Dataset | None = None) -> Dataset:
    """Keeps the first of each set of rows that agree in prompt, completions and user.

    With `against` (the dev data), rows whose prompt stands there word for word go too. Near-duplicates and conflicting labels stay:
    which of them is right is not for a program to say.

    Raises:
        DataError: nothing would be left.
    """
    surplus = {row for rows in duplicate_rows(dataset.examples) for row in rows[1:]}
    held_out = {example.messages for example in against} if against is not None else set()
    kept = [example for row, example in enumerate(dataset) if row not in surplus and example.messages not in held_out]
    if not kept:
        raise DataError(f"No row of `{dataset.path}` would be left: every prompt also stands in the dev data. Give other dev data.")
    return dataset if len(kept) == len(dataset) else dataset.with_examples(kept)


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """Two parts of a data set, each in the order of the original.

    Attributes:
        grouped_by: what was kept on one side: `near-duplicates`, or only equal `prompts` where near-duplicates chain through most rows.
    """

    train: Dataset
    dev: Dataset
    grouped_by: Literal["near-duplicates", "prompts"]


def split(dataset: Dataset, dev_share: float = 0.1, *, seed: int = 0, threshold: float = NEAR) -> Split:
    """Sets a share of the rows aside as dev data: by label in proportion, and never apart from their near-duplicates.

    Rows fed from one template (tables turned to text) can chain into groups too large to set aside. Then only rows with the same prompt
    are kept together; `grouped_by` says so and a warning is logged.

    Raises:
        ConfigError: `dev_share` is not above 0 and at most 0.5.
        DataError: the rows cannot be split, because nearly all share one prompt or there is only one.
    """
    if not 0 < dev_share <= 0.5:
        raise ConfigError(f"The dev share must be above 0 and at most 0.5; got {dev_share}.")
    if len(dataset) < 2:
        raise DataError(f"`{dataset.path}` cannot be split: it has fewer than two rows. Add rows.")
    share = max(dev_share, 1 / len(dataset))
    wanted = round(share * len(dataset))
    links = _equal_prompts(dataset)
    alike = resemblance([conversation_text(example) for example in dataset], threshold=threshold)
    chosen = _dev_rows(dataset, [*links, *alike.links(0, len(dataset))], share, seed)
    grouped_by: Literal["near-duplicates", "prompts"] = "near-duplicates"
    if len(chosen) < wanted / 2:
        logger.warning(
            "%s: near-duplicates chain through most rows (%d of %d wanted dev rows found); only equal prompts are kept together.",
            dataset.path,
            len(chosen),
            wanted,
        )
        chosen, grouped_by = _dev_rows(dataset, links, share, seed), "prompts"
    if not chosen:
        raise DataError(
            f"`{dataset.path}` cannot be split: its {len(dataset):,} rows have too few distinct prompts (for each label). "
            "Give dev data of their own."
        )
    return Split(
        train=dataset.with_examples(example for row, example in enumerate(dataset) if row not in chosen),
        dev=dataset.with_examples(example for row, example in enumerate(dataset) if row in chosen),
        grouped_by=grouped_by,
    )


def _equal_prompts(dataset: Dataset) -> list[tuple[int, int]]:
    first: dict[object, int] = {}
    return [(first.setdefault(example.messages, row), row) for row, example in enumerate(dataset)]


def _dev_rows(dataset: Dataset, links: Iterable[tuple[int, int]], dev_share: float, seed: int) -> set[int]:
    """Rows for the dev side: whole groups, label by label, each label's rounding error carried to the next so that the total fits."""
    joined = groups(len(dataset), links)
    inside = {row for group in joined for row in group}
    units = [*joined, *([row] for row in range(len(dataset)) if row not in inside)]
    units.sort()
    random.Random(seed).shuffle(units)
    chosen: set[int] = set()
    owed = 0.0
    for stratum in _strata(dataset, units):
        size = sum(len(unit) for unit in stratum)
        owed += dev_share * size
        quota = round(owed) if len(stratum) > 1 else 0
        taken = 0
        for unit in stratum[:-1]:
            if taken + len(unit) <= min(quota, size // 2):
                chosen.update(unit)
                taken += len(unit)
        owed -= taken
    return chosen


def _strata(dataset: Dataset, units: Sequence[list[int]]) -> list[list[list[int]]]:
    """Groups by the commonest label in them, the smallest label first, so that what it cannot give is made up for by larger ones."""
    if dataset.labels is None:
        return [list(units)]
    strata: dict[str, list[list[int]]] = {label: [] for label in dataset.labels}
    for unit in units:
        found = [dataset.examples[row].completions[0] for row in unit]
        strata[max(found, key=found.count)].append(unit)
    return sorted((stratum for stratum in strata.values() if stratum), key=len)


def write_jsonl(dataset: Dataset, path: str | os.PathLike[str]) -> Path:
    """Writes rows that `read` gives back as the same examples, packed with gzip where the name ends in `.gz`.

    The file appears whole or not at all: an old one stays as it is until the new one is on the disk.

    Raises:
        DataError: the file cannot be written.
    """
    target = Path(path)
    as_messages = dataset.kind == "generation" and not all(_is_single_turn(example) for example in dataset)
    lines = (json.dumps(_fields(example, dataset, as_messages), ensure_ascii=False) for example in dataset)
    content = "".join(f"{line}\n" for line in lines).encode("utf-8")
    if target.suffix == ".gz":
        content = gzip.compress(content, mtime=0)
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise DataError(
            f"`{target}` cannot be written: {error.strerror or error}. What was there before is intact; "
            "free space or choose another folder."
        ) from error
    return target


def _is_single_turn(example: Example) -> bool:
    """Whether `prompt` and `system` can say it: a user turn, with at most a system turn that is not empty before it."""
    roles = [message.role for message in example.messages]
    return roles == ["user"] or (roles == ["system", "user"] and bool(example.messages[0].content))


def _fields(example: Example, dataset: Dataset, as_messages: bool) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    first, *others = example.completions
    if as_messages:
        turns = [{"role": message.role, "content": message.content} for message in example.messages]
        fields["messages"] = [*turns, {"role": "assistant", "content": first}]
        if others:
            fields["references"] = others
    else:
        if example.messages[0].role == "system":
            fields["system"] = example.messages[0].content
        if dataset.kind == "classification":
            fields |= {"text": example.prompt, "label": first}
        else:
            fields |= {"prompt": example.prompt, "completion": [first, *others] if others else first}
    if example.user is not None:
        fields["user"] = example.user
    return fields
