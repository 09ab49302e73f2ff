"""Finds implementations: the file name in a plural folder is the key; entry points add to it.

A plug-in registers under the entry-point group `foreword.<folder>`, e.g. `foreword.objectives`.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
import sys
from importlib.metadata import EntryPoints, entry_points
from types import ModuleType

from foreword.errors import RegistryError


def names(folder: str) -> tuple[str, ...]:
    """Keys known in `folder`, e.g. `names("foreword.engines")`; underscores in files become hyphens."""
    package = importlib.import_module(folder)
    built_in = {info.name.replace("_", "-") for info in pkgutil.iter_modules(package.__path__) if not info.name.startswith("_")}
    return tuple(sorted(built_in | {point.name for point in _entry_points(folder)}))


def find(folder: str, key: str) -> ModuleType:
    """The module called `key` in `folder`, or the one an entry point registers under that name.

    Raises:
        RegistryError: neither knows `key`; the message lists what is known.
    """
    known = names(folder)
    if key not in known:
        kind = folder.rsplit(".", 1)[-1]
        raise RegistryError(f"No `{key}` among {kind}. Known: {', '.join(known)}.")
    for point in _entry_points(folder):
        if point.name == key:
            return point.load()
    return importlib.import_module(f"{folder}.{key.replace('-', '_')}")


def _entry_points(folder: str) -> EntryPoints:
    return _installed(f"foreword.{folder.rsplit('.', 1)[-1]}", tuple(sys.path))


@functools.cache
def _installed(group: str, places: tuple[str, ...]) -> EntryPoints:
    """Looking through every installed package takes milliseconds. Args: places: where packages lie, so that new ones are seen."""
    return entry_points(group=group)
