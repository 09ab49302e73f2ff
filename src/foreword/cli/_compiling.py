"""Shows a compilation while it goes: a bar for each part on a terminal, a line for each elsewhere."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from foreword.cli._console import plain, say, stderr, stdout
from foreword.cli._units import size

if TYPE_CHECKING:
    from foreword.compiling.settings import CompileSettings


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


def show_report(engine: Any, text: str, settings: CompileSettings, plot: Path | None, *, as_json: bool) -> None:
    """What a text loses at several sizes: a table or one line of JSON, and a picture where one is wanted."""
    from foreword.compiling import report

    with CompileProgress(stderr()) as progress:
        found = report.report(engine, text, settings=settings, observer=progress)
    if plot is not None:
        _draw(report.drawn(found), plot)
    if as_json:
        stdout().out(json.dumps(asdict(found)), highlight=False)
        return
    table = Table("method", "positions", "size", "gain", "nats per token", "cost in readings", box=None, pad_edge=False)
    for column in table.columns[1:]:
        column.justify = "right"
    for line in found.lines:
        cells = (f"{line.positions:,}", size(line.nbytes), f"{line.gain:.3f}", f"{line.nats:.3f}", f"{line.prefills:.1f}")
        table.add_row(line.method, *cells)
    stdout().print(table)
    say(
        f"Gain: 1 with the whole text, 0 without it ({found.nats_without:.3f} nats per token), on {found.questions} questions that the "
        "model asked itself and no method saw. Cost: processor time over that of reading the text once."
    )


def _draw(picture: bytes | None, path: Path) -> None:
    if picture is None:
        say("matplotlib is not installed, so nothing is drawn: pip install matplotlib")
        return
    part = path.with_name(f"{path.name}.part")
    part.write_bytes(picture)
    os.replace(part, path)
    say(f"Drawn: {path}")
