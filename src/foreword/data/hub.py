"""Rows of a Hugging Face data set, by name, through the `datasets` extra."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from foreword.data.files import RawRow
from foreword.errors import DataError

SCHEME = "hf:"
DEFAULT_SPLIT = "train"


def hub_rows(address: str, *, split: str | None = None) -> tuple[Iterator[RawRow], tuple[str, ...] | None]:
    """Rows of `hf:NAME[:CONFIG]` and, where the data set has them, the names of its integer labels.

    NAME is a data set on the Hugging Face hub or a local folder that `datasets.load_dataset` understands. `split` is `train` by default.

    Raises:
        DataError: `datasets` is not installed, or it cannot load that name, configuration or split.
    """
    name, _, config = address.removeprefix(SCHEME).partition(":")
    if not name:
        raise DataError(f"`{address}` names no data set. Write hf:NAME or hf:NAME:CONFIG.")
    try:
        import datasets
    except ImportError as error:
        raise DataError(f"`{address}` needs the `datasets` package. Install it: pip install foreword[datasets]") from error
    wanted = split or DEFAULT_SPLIT
    try:
        table = datasets.load_dataset(name, config or None, split=wanted)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise DataError(
            f"`{address}`, split `{wanted}`, cannot be loaded: {str(error) or type(error).__name__}\n"
            "Check the name, the configuration and the split, and that the network or the local folder is there."
        ) from error
    return arrow_rows(table), label_names(table)


def arrow_rows(table: Any) -> Iterator[RawRow]:
    """Rows of a loaded `datasets.Dataset`, numbered from 1."""
    for number, fields in enumerate(table, start=1):
        yield RawRow(line=number, fields=fields)


def label_names(table: Any) -> tuple[str, ...] | None:
    """Names of the integer labels, where the `label` column is a `ClassLabel`."""
    names = getattr((table.features or {}).get("label"), "names", None)
    return tuple(names) if names else None
