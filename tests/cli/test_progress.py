"""What is seen of a tuning run."""

from __future__ import annotations

import io

from rich.console import Console

from foreword.cli._progress import TuningProgress
from foreword.cost.prices import Price


def watch(console: Console, *, price: Price | None = None) -> str:
    with TuningProgress(console, price=price) as progress:
        progress.planned(160)
        progress.stage("probing prefix:eagle: rate 0.02")
        progress.step(2.5, 16, 1234.0)
        progress.evaluated("prefix:eagle:, rate 0.02", 2.25)
        progress.note("2 examples were [too] long")
    file = console.file
    assert isinstance(file, io.StringIO)
    return file.getvalue()


def test_lines_where_no_screen_is():
    lines = watch(Console(file=io.StringIO(), width=200, markup=False, emoji=False, highlight=False)).splitlines()
    assert lines == [
        "160 training targets are planned",
        "probing prefix:eagle: rate 0.02",
        "prefix:eagle:, rate 0.02: dev loss 2.250, loss 2.500, 1,234 tokens/s",
        "2 examples were [too] long",
    ]


def test_a_bar_on_a_terminal():
    shown = watch(Console(file=io.StringIO(), width=200, force_terminal=True, color_system=None, markup=False, emoji=False))
    for part in ("probing prefix:eagle: rate 0.02", "10%", "loss 2.500 · dev 2.250 · 1,234 tokens/s", "2 examples were [too] long"):
        assert part in shown


def test_cost_so_far_only_with_a_price():
    price = Price.model_validate({"machine_hour": 3600, "currency": "EUR"})
    assert " EUR" in watch(Console(file=io.StringIO(), width=200), price=price)
    assert "USD" not in watch(Console(file=io.StringIO(), width=200))
