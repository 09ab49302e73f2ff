"""Files, Hugging Face names and rows in memory to a `Dataset`; every bad row is collected and named."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal

from foreword.data.dataset import Dataset, Skip
from foreword.data.files import RawRow, raw_rows
from foreword.data.hub import SCHEME, hub_rows
from foreword.data.rows import LabelRule, Shape, decide_shape, to_example
from foreword.errors import ConfigError, DataError
from foreword.types import Example

OnBad = Literal["fail", "skip"]
_SHOWN = 10


def read(
    path: str | os.PathLike[str],
    *,
    labels: Sequence[str] | None = None,
    label_names: Sequence[str] | None = None,
    on_bad: OnBad = "fail",
    split: str | None = None,
    minimum: int = 1,
) -> Dataset:
    """Reads JSONL, CSV, TSV or a JSON list (each also as `.gz`), or a Hugging Face data set `hf:NAME[:CONFIG]`.

    A row is `prompt`+`completion` (a string or a list; `references` or `refs` add further ones), `messages` that end with the assistant's
    answer, or `text`+`label`. `system` puts a system turn in front and `user` says whose row it is; other fields are ignored.

    Args:
        labels: the labels that `text`+`label` rows may have, for example those of the training data; by default what the rows have.
        label_names: names for the integer labels 0, 1, ...; by default the data set's own, or else the decimal string.
        on_bad: `fail` raises and lists the bad rows; `skip` leaves them out and lists them in `Dataset.skipped`.
        split: which part of a Hugging Face data set, `train` by default.
        minimum: how many usable rows there must be.

    Raises:
        DataError: the file or rows in it cannot be used; the message names lines.
        ConfigError: an option that does not fit the source.
    """
    source = os.fspath(path)
    if source.startswith(SCHEME):
        rows, own_names = hub_rows(source, split=split)
        names = tuple(label_names) if label_names is not None else own_names
    else:
        if split is not None:
            raise ConfigError(f"`split` chooses a part of a Hugging Face data set; `{source}` is a file. Leave it out.")
        rows, names = raw_rows(Path(source)), None if label_names is None else tuple(label_names)
    return _gather(rows, source, labels=labels, names=names, on_bad=on_bad, minimum=minimum)


def from_rows(
    rows: Iterable[Mapping[str, object]],
    *,
    path: str = "memory",
    labels: Sequence[str] | None = None,
    label_names: Sequence[str] | None = None,
    on_bad: OnBad = "fail",
    minimum: int = 1,
) -> Dataset:
    """A data set from rows in memory, with the shapes, options and errors of `read`. Rows are numbered from 1."""
    raw = (RawRow(line=number, fields=fields) for number, fields in enumerate(rows, start=1))
    names = None if label_names is None else tuple(label_names)
    return _gather(raw, path, labels=labels, names=names, on_bad=on_bad, minimum=minimum)


def _gather(
    rows: Iterable[RawRow], path: str, *, labels: Sequence[str] | None, names: tuple[str, ...] | None, on_bad: OnBad, minimum: int
) -> Dataset:
    if on_bad not in ("fail", "skip"):
        raise ConfigError(f"`on_bad` must be `fail` or `skip`; got `{on_bad}`.")
    rule = LabelRule(known=None if labels is None else tuple(labels), names=names)
    examples, skipped, shape = _converted(rows, rule)
    if skipped and (on_bad == "fail" or not examples):
        raise DataError(_bad_rows(path, skipped, total=len(skipped) + len(examples), mendable=bool(examples)))
    if not examples:
        raise DataError(f"`{path}` is empty: it has no rows. Give at least {minimum}.")
    if len(examples) < minimum:
        raise DataError(f"`{path}` has {_count(len(examples), 'usable row')}; at least {minimum} are needed. Add rows.")
    if shape != "text+label":
        if labels is not None:
            raise DataError(f"`{path}` holds {shape} rows, and labels were given. Rename the fields to `text` and `label`, or drop labels.")
        return Dataset.of(examples, path=path, skipped=skipped)
    known = rule.known or names or _natural_order({example.completions[0] for example in examples})
    return Dataset.of(examples, labels=known, path=path, skipped=skipped)


def _converted(rows: Iterable[RawRow], rule: LabelRule) -> tuple[list[Example], list[Skip], Shape | None]:
    examples: list[Example] = []
    skipped: list[Skip] = []
    shape: Shape | None = None
    for row in rows:
        if row.fields is None:
            skipped.append(Skip(line=row.line, reason=row.problem))
            continue
        try:
            shape = shape or decide_shape(row.fields)
            examples.append(to_example(row.fields, shape=shape, line=row.line, rule=rule))
        except DataError as error:
            skipped.append(Skip(line=row.line, reason=str(error)))
    return examples, skipped, shape


def _bad_rows(path: str, skipped: Sequence[Skip], *, total: int, mendable: bool) -> str:
    listed = [f"  line {skip.line}: {skip.reason}" for skip in skipped[:_SHOWN]]
    if len(skipped) > _SHOWN:
        listed.append(f"  and {len(skipped) - _SHOWN:,} more")
    advice = 'Mend or remove them, or leave them out with on_bad="skip".' if mendable else "No row is left; mend them."
    return "\n".join([f"`{path}`: {len(skipped):,} of {_count(total, 'row')} cannot be used:", *listed, advice])


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _natural_order(labels: Iterable[str]) -> tuple[str, ...]:
    """Numbers first and by value (2 before 10), then the rest by alphabet."""
    return tuple(sorted(labels, key=lambda label: (not label.isdecimal(), int(label) if label.isdecimal() else 0, label)))
