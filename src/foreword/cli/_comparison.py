"""A comparison on the terminal: its progress, its table, and answers side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from foreword.cli._console import plain

if TYPE_CHECKING:
    from foreword.evaluate.comparison import Comparison, Stage

DROPPED_FIRST = ("memory", "trained", "artifact", "training", "latency", "tokens", "cost", "ended", "first")
"""Columns that go, in this order, where the terminal is too narrow for all."""
CELL_PADDING = 3


@contextmanager
def comparison_progress(console: Console) -> Iterator[Callable[[Stage], None]]:
    """Shows which contender is doing what: a bar on a terminal, a line for each new stage elsewhere."""
    if not console.is_terminal:
        yield _line_per_stage(console)
        return
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("Starting", total=None)

        def told(stage: Stage) -> None:
            bar.update(task, description=_title(stage), completed=stage.done, total=stage.total or None)

        yield told


def _line_per_stage(console: Console) -> Callable[[Stage], None]:
    shown: set[str] = set()

    def told(stage: Stage) -> None:
        title = _title(stage)
        if title not in shown:
            shown.add(title)
            console.print(Text(title), soft_wrap=True)

    return told


def _title(stage: Stage) -> str:
    return plain(f"{stage.number}/{stage.of} {stage.contender}: {stage.doing}")


def show_comparison(comparison: Comparison, console: Console) -> None:
    """The table, what it leaves out, what failed and how it was made."""
    from foreword.evaluate.report import caption, to_table, troubles

    cells = to_table(comparison)
    kept = _fitting(cells.headers, cells.rows, console.width)
    if cells.rows:
        several = len({row.model for row in comparison.rows}) > 1
        told = f"{len(cells.rows)} strategies{' and models' if several else ''}"
        table = Table(title=f"{plain(comparison.task)}: {told}", title_justify="left")
        for number in kept:
            table.add_column(Text(cells.headers[number]), justify="left" if number == 0 else "right")
        for row in cells.rows:
            style = "bold" if row[0] == comparison.reference else ""
            table.add_row(*(Text(plain(row[number])) for number in kept), style=style)
        console.print(table)
    left_out = [header for number, header in enumerate(cells.headers) if number not in kept]
    if left_out:
        console.print(Text(f"Left out for want of space: {', '.join(left_out)} (a wider terminal, --markdown or --html shows them)."))
    for name, reason in cells.failures:
        console.print(Text.assemble((f"{plain(name)} failed: ", "bold red"), plain(reason)), soft_wrap=True)
    for line in troubles(comparison):
        console.print(Text(plain(line)), soft_wrap=True)
    for line in caption(comparison):
        console.print(Text(plain(line), style="dim"), soft_wrap=True)


def show_answers(comparison: Comparison, console: Console) -> None:
    """What each contender answered to the first dev rows, under what was wanted."""
    for index, sample in enumerate(comparison.samples):
        table = Table(title=Text(plain(sample.prompt), style="italic"), title_justify="left", show_header=False, show_lines=True)
        table.add_column(style="bold", no_wrap=True)
        table.add_column(overflow="fold")
        table.add_row("wanted", Text(plain(sample.references[0])))
        for row in comparison.ranked():
            if row.measured is not None:
                table.add_row(Text(plain(row.contender)), Text(plain(row.measured.sample_answers[index].strip())))
        console.print(table)


def _fitting(headers: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> list[int]:
    """Numbers of the columns that fit, the least telling ones dropped first."""
    widths = [max(len(line[number]) for line in (headers, *rows)) + CELL_PADDING for number in range(len(headers))]
    kept = list(range(len(headers)))
    for name in DROPPED_FIRST:
        if sum(widths[number] for number in kept) + 1 <= width:
            break
        if name in headers:
            kept.remove(headers.index(name))
    return kept


def failed(comparison: Any) -> bool:
    """Whether any contender failed."""
    return any(row.measured is None for row in comparison.rows)
