"""Paths in a `foreword.toml`: they start at the file's folder, wherever the command that reads it is started."""

from __future__ import annotations

from pathlib import Path
from typing import Any

_PLACES: tuple[tuple[str, ...], ...] = (
    ("store", "ledger"),
    ("store", "capture"),
    ("store", "batches"),
    ("intake_model",),
    ("router_model",),
)
_OF_A_TASK = ("assemble", "passages", "folder")
_OF_A_MODEL = ("model",)


def rooted(fields: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The same fields, with relative paths made to start at `folder`; what is of the wrong kind is left for whoever checks it."""
    for place in _PLACES:
        fields = _changed(fields, place, folder)
    for kind, place in (("tasks", _OF_A_TASK), ("models", _OF_A_MODEL)):
        named = fields.get(kind)
        if isinstance(named, dict):
            fields = {**fields, kind: {name: _changed(one, place, folder) for name, one in named.items()}}
    return fields


def _changed(fields: Any, place: tuple[str, ...], folder: Path) -> Any:
    first, *rest = place
    if not isinstance(fields, dict) or first not in fields:
        return fields
    value = fields[first]
    if rest:
        return {**fields, first: _changed(value, tuple(rest), folder)}
    if not isinstance(value, str) or not _is_relative(value, only_explicit=place == _OF_A_MODEL):
        return fields
    return {**fields, first: str(folder / value)}


def _is_relative(value: str, *, only_explicit: bool) -> bool:
    """Args: only_explicit: a model may be a name, and is a folder where it starts with a dot."""
    if only_explicit:
        return value.startswith(("./", "../"))
    return bool(value) and value != "none" and "://" not in value and not value.startswith("~") and not Path(value).is_absolute()
