"""A group of commands that is imported when it is called: the list of commands is to appear at once, and `data` needs numpy."""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperGroup


class DataGroup(TyperGroup):
    """Stands for `foreword data` in the list of commands; its first use imports the commands and hands over to them."""

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        from foreword.cli import data

        # Mounted once more, so that the group takes over how the root shows help.
        root = typer.Typer(rich_markup_mode=None)
        root.add_typer(data.app, name="data")
        root.callback()(_root)
        return typer.main.get_group(root).commands["data"].make_context(info_name, args, parent, **extra)


def _root() -> None:
    """Makes a typer with a single group a group itself."""
