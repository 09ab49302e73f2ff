"""Figures as texts for tables and pictures: short, and never in a form that a reader has to decode."""

from __future__ import annotations

import html
import math
from decimal import Decimal

from foreword.evaluate.row import Difference

UNKNOWN = "–"


def figure(value: float) -> str:
    """A score: shares with three decimals, larger numbers with one or none."""
    if not math.isfinite(value):
        return "∞" if value > 0 else "-∞" if value < 0 else "NaN"
    if abs(value) < 2:
        return f"{value:.3f}"
    return f"{value:.1f}" if abs(value) < 1000 else f"{value:.3g}"


def difference(against: Difference | None) -> str:
    """A signed difference and how likely it is by chance; the reference itself has none."""
    if against is None:
        return "reference"
    sign = "+" if against.value >= 0 else "−"
    p = "p < .01" if against.p_adjusted < 0.01 else f"p = {against.p_adjusted:.2f}".replace("0.", ".")
    return f"{sign}{figure(abs(against.value))} ({p})"


def money(amount: Decimal) -> str:
    """Three significant digits, never in exponent form."""
    if amount == 0:
        return "0"
    digits = max(2, 2 - amount.adjusted())
    return f"{amount:.{digits}f}"


def seconds(value: float) -> str:
    """A duration, short."""
    if value < 1:
        return f"{value * 1000:.0f} ms"
    return f"{value:.1f} s" if value < 120 else f"{value / 60:.1f} min"


def size(count_of_bytes: int) -> str:
    """Bytes in decimal units."""
    if count_of_bytes == 0:
        return UNKNOWN
    value = float(count_of_bytes)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000 or unit == "GB":
            return f"{value:.0f} {unit}" if unit == "B" or value >= 100 else f"{value:.1f} {unit}"
        value /= 1000
    raise AssertionError("unreachable")


def count(number: int) -> str:
    """A count of parameters, short."""
    if number == 0:
        return UNKNOWN
    for bound, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= bound:
            return f"{number / bound:.3g} {unit}"
    return str(number)


def escape(text: str) -> str:
    """Text for HTML, attributes included."""
    return html.escape(text, quote=True)
