"""Shows a tuning run while it goes: a bar on a terminal, a line for each stage and evaluation elsewhere."""

from __future__ import annotations

import time
from decimal import Decimal
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

from foreword.cli._console import plain
from foreword.cost.prices import Price, machine_cost

LABEL_WIDTH = 40


class TuningProgress:
    """An `Observer` (see `foreword.tuning.observer`) that shows stage, loss, dev loss, tokens per second, time left and cost so far."""

    def __init__(self, console: Console, *, price: Price | None = None) -> None:
        """Args: price: what a machine-hour costs; without it no cost is shown."""
        self._console, self._price = console, price
        self._began = time.monotonic()
        self._figures: dict[str, str] = {}
        self._bar: Progress | None = None
        self._task: Any = None

    def __enter__(self) -> TuningProgress:
        self._began = time.monotonic()
        if self._console.is_terminal:
            columns = (
                TextColumn("{task.description}", markup=False),
                BarColumn(bar_width=20),
                TextColumn("{task.percentage:>3.0f}%"),
                TextColumn("{task.fields[figures]}", markup=False),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(),
            )
            self._bar = Progress(*columns, console=self._console, transient=True)
            self._task = self._bar.add_task("Starting", total=None, figures="")
            self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.stop()

    def stage(self, text: str) -> None:
        """A new part of the run begins."""
        if self._bar is not None:
            self._bar.update(self._task, description=plain(text if len(text) <= LABEL_WIDTH else f"{text[: LABEL_WIDTH - 1]}…"))
        else:
            self._line(text)

    def planned(self, total_targets: int) -> None:
        """How much there is to do; the bar keeps what is done."""
        if self._bar is not None:
            self._bar.update(self._task, total=total_targets)
        else:
            self._line(f"{total_targets:,} training targets are planned")

    def step(self, loss: float, targets_done: int, tokens_per_second: float) -> None:
        """One training step."""
        self._figures["loss"] = f"loss {loss:.3f}"
        self._figures["speed"] = f"{tokens_per_second:,.0f} tokens/s"
        if (cost := self._cost()) is not None:
            self._figures["cost"] = cost
        self._refresh(completed=targets_done)

    def evaluated(self, name: str, loss: float) -> None:
        """The dev loss of a candidate."""
        self._figures["dev"] = f"dev {loss:.3f}"
        if self._bar is not None:
            self._refresh()
        else:
            speed = self._figures.get("speed")
            figures = ", ".join(
                part for part in (f"dev loss {loss:.3f}", self._figures.get("loss", ""), speed or "", self._cost() or "") if part
            )
            self._line(f"{name}: {figures}")

    def note(self, text: str) -> None:
        """Something to know; stays on the screen."""
        self._line(text)

    def _refresh(self, **changes: Any) -> None:
        if self._bar is not None:
            figures = " · ".join(self._figures[name] for name in ("loss", "dev", "speed", "cost") if name in self._figures)
            self._bar.update(self._task, figures=figures, **changes)

    def _cost(self) -> str | None:
        paid = machine_cost(self._price, time.monotonic() - self._began)
        return None if paid is None or self._price is None else f"{money(paid)} {self._price.currency}"

    def _line(self, text: str) -> None:
        self._console.print(Text(plain(text)), soft_wrap=True)


def money(amount: Decimal) -> str:
    """Four digits after the point: a run costs cents."""
    return f"{amount:.4f}"
