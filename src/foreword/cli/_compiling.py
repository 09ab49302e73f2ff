"""Shows a compilation while it goes: a bar for each part on a terminal, a line for each elsewhere."""

from __future__ import annotations

from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

from foreword.cli._console import plain


class CompileProgress:
    """An `Observer` (see `foreword.compiling.observer`)."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar: Progress | None = None
        self._task: Any = None

    def __enter__(self) -> CompileProgress:
        if self._console.is_terminal:
            columns = (
                TextColumn("{task.description}", markup=False),
                BarColumn(bar_width=20),
                TextColumn("{task.percentage:>3.0f}%"),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(),
            )
            self._bar = Progress(*columns, console=self._console, transient=True)
            self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.stop()

    def stage(self, text: str, total: int) -> None:
        """A new part of the work begins."""
        if self._bar is None:
            self.note(text)
            return
        if self._task is not None:
            self._bar.remove_task(self._task)
        self._task = self._bar.add_task(plain(text), total=total)

    def advance(self, pieces: int) -> None:
        """Some pieces of the part are done."""
        if self._bar is not None and self._task is not None:
            self._bar.advance(self._task, pieces)

    def note(self, text: str) -> None:
        """Something to know; stays on the screen."""
        self._console.print(Text(plain(text)), soft_wrap=True)
