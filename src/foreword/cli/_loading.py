"""Models and prefixes by what the user calls them, and settings out of options."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from foreword.cli._console import say, stderr
from foreword.errors import ConfigError

if TYPE_CHECKING:
    from pydantic import BaseModel

    from foreword.api import Model
    from foreword.prefix.artifact import Prefix

Settings = TypeVar("Settings", bound="BaseModel")


def load_model(
    name: str,
    *,
    dtype: str = "auto",
    device: str = "auto",
    weights: str = "auto",
    revision: str | None = None,
    trust_remote_code: bool = False,
) -> Model:
    """Loads a model, with a progress bar where it has to be converted first.

    Raises:
        ConfigError: there is no such device here.
        ModelError: see `foreword.api.load`.
    """
    check_device(device)
    from transformers.utils import logging as transformers_logging

    from foreword.api import load

    transformers_logging.set_verbosity_error()
    with conversion_bar(name) as progress:
        return load(
            name, revision=revision, dtype=dtype, device=device, weights=weights, trust_remote_code=trust_remote_code, progress=progress
        )


def check_device(device: str) -> None:
    """Raises `ConfigError` unless `device` is `auto` or a torch device that this machine has."""
    if device == "auto":
        return
    import torch

    try:
        found = torch.device(device)
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = (str(error).strip().splitlines() or ["unknown"])[0].rstrip(".")
        raise ConfigError(f"There is no device `{device}` here ({reason}). Use cpu, cuda, cuda:0, ... or auto.") from error


@contextmanager
def conversion_bar(name: str) -> Iterator[Callable[[str, int, int], None]]:
    """What is told of a model's one-time conversion, as a progress bar, or as lines where nobody looks at a screen."""
    if not sys.stderr.isatty():
        yield lambda doing, done, total: say(f"Preparing {name} (once): {doing} ({done}/{total})")
        return
    columns = (TextColumn("Preparing {task.fields[name]} (once): {task.description}", markup=False), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=stderr(), transient=True) as bar:
        tasks: list[Any] = []

        def told(doing: str, done: int, total: int) -> None:
            # The bar appears with the first step: a model that is ready shows none.
            if not tasks:
                tasks.append(bar.add_task(doing, total=total, name=name))
            bar.update(tasks[0], description=doing, completed=done, total=total)

        yield told


def prefix_file(ref: str, root: Path | None = None) -> Path:
    """The file that a store reference or a path means.

    Raises:
        StoreError: the store has no such prefix.
    """
    from foreword.prefix.store import PrefixStore

    if os.sep in ref or ref.endswith(".safetensors") or Path(ref).is_file():
        return Path(ref).expanduser()
    return PrefixStore(root).resolve(ref).path


def load_prefix(ref: str, root: Path | None = None) -> Prefix:
    """The prefix that a store reference or a path means.

    Raises:
        StoreError: the store has no such prefix.
        PrefixFileError: the file is not sound.
    """
    from foreword.prefix.artifact import Prefix

    return Prefix.load(prefix_file(ref, root))


def settings_from_options(kind: type[Settings], **fields: Any) -> Settings:
    """A settings object; what its model refuses becomes a `ConfigError` that names the option."""
    from pydantic import ValidationError

    try:
        return kind(**fields)
    except ValidationError as error:
        problems = [f"{_option(part['loc'])}{part['msg'].removeprefix('Value error, ')}" for part in error.errors()]
        raise ConfigError("; ".join(problems) + ". See `--help`.") from error


def check_prefix_name(name: str) -> None:
    """Raises `ConfigError` unless `name` can name a new prefix; asked before minutes are spent on making it."""
    from foreword.prefix.header import check_name

    try:
        check_name(name)
    except ValueError as error:
        raise ConfigError(f"`{name}` cannot name a prefix: {error}.") from None


def _option(location: tuple[int | str, ...]) -> str:
    return f"`{'.'.join(str(part) for part in location).replace('_', '-')}`: " if location else ""
