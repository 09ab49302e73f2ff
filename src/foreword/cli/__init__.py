"""The `foreword` command, one file per command; the only room that prints, handles errors and chooses exit codes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from foreword.cli._app import main

__all__ = ["main"]


def __getattr__(name: str) -> Any:
    if name == "main":
        from foreword.cli._app import main

        return main
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
