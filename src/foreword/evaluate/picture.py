"""Pictures of a comparison as inline SVG: bars with intervals, and quality against what it costs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from foreword.evaluate.comparison import Comparison
from foreword.evaluate.row import Estimate, Measured
from foreword.evaluate.wording import escape, figure

WIDTH, HEIGHT = 460, 300
LEFT, RIGHT, TOP, BOTTOM = 56, 16, 16, 44
BAR_STEP = 34
WIDE = 20
"""How many times the smallest cost the largest may be before the scale is logarithmic."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """Maps values from low..high to pixels, linearly or by their logarithm."""

    low: float
    high: float
    start: float
    end: float
    logarithmic: bool = False

    def __call__(self, value: float) -> float:
        if self.logarithmic:
            share = math.log(value / self.low) / math.log(self.high / self.low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)

    def ticks(self, most: int = 5) -> list[float]:
        """Round values inside the scale: multiples of 1, 2 or 5 times a power of ten, or powers of ten."""
        if self.logarithmic:
            first, last = math.ceil(math.log10(self.low) - 1e-9), math.floor(math.log10(self.high) + 1e-9)
            apart = max(1, math.ceil((last - first + 1) / most))
            return [10.0**power for power in range(first, last + 1, apart)]
        rough = (self.high - self.low) / most
        power = 10 ** math.floor(math.log10(rough))
        step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough)
        first = math.ceil(self.low / step - 1e-9)
        last = math.floor(self.high / step + 1e-9)
        return [number * step for number in range(first, last + 1)]


def drawn(comparison: Comparison) -> list[tuple[str, Measured]]:
    """Rows whose quality can be drawn."""
    rows = [(row.contender, row.measured) for row in comparison.ranked() if row.measured is not None]
    return [(name, row) for name, row in rows if all(map(math.isfinite, (row.quality.value, row.quality.low, row.quality.high)))]


def _scale(values: Sequence[float], start: float, end: float) -> Scale:
    low, high = min(0.0, *values), max(values)
    return Scale(low=low, high=low + (high - low) * 1.08 if high > low else low + 1, start=start, end=end)


def bars(comparison: Comparison) -> str:
    """Quality of each contender as a bar, the interval as a line across its end."""
    rows = drawn(comparison)
    if not rows:
        return "<p>Nothing to draw.</p>"
    left, height = 130, TOP + BAR_STEP * len(rows) + BOTTOM
    across = _scale([bound for _, row in rows for bound in (row.quality.low, row.quality.value, row.quality.high)], left, WIDTH - RIGHT)
    parts = [_ticks_below(across, height - BOTTOM, figure), _axis_title(comparison.primary, (left + WIDTH) / 2, height - 8)]
    for index, (name, row) in enumerate(rows):
        top = TOP + BAR_STEP * index
        middle = top + BAR_STEP / 2 - 3
        mark = "bar reference" if name == comparison.reference else "bar"
        begin, end = sorted((across(0.0), across(row.quality.value)))
        parts.append(f'<text class="label" x="{left - 8}" y="{middle + 4:.1f}" text-anchor="end">{escape(_short(name))}</text>')
        parts.append(
            f'<rect class="{mark}" x="{begin:.1f}" y="{top + 2}" width="{end - begin:.1f}" height="{BAR_STEP - 10}">'
            f"<title>{escape(_spoken(name, row))}</title></rect>"
        )
        parts.append(_whisker_across(across(row.quality.low), across(row.quality.high), middle))
    summary = "; ".join(_spoken(name, row) for name, row in rows)
    return _svg(f"{comparison.primary} by contender", summary, parts, height)


def scatter(
    comparison: Comparison,
    title: str,
    x_of: Callable[[Measured], float | None],
    shown: Callable[[float], str],
    *,
    up_title: str | None = None,
    up_of: Callable[[Measured], Estimate] = lambda row: row.quality,
) -> str:
    """Quality (or another estimate) against one cost; a point per contender with its interval. Those without the cost are left out.

    The cost's scale is logarithmic where the largest is more than twenty times the smallest.
    """
    points = [(name, row, x) for name, row in drawn(comparison) if (x := x_of(row)) is not None and math.isfinite(x)]
    if not points:
        return "<p>Nothing to draw.</p>"
    up_title = comparison.primary if up_title is None else up_title
    across = _cost_scale([x for *_, x in points], LEFT, WIDTH - RIGHT - 60)
    up = _scale([bound for _, row, _ in points for bound in (up_of(row).low, up_of(row).high)], HEIGHT - BOTTOM, TOP)
    parts = [_ticks_below(across, HEIGHT - BOTTOM, shown), _axis_title(title, (LEFT + WIDTH) / 2, HEIGHT - 8)]
    for tick in up.ticks():
        y = up(tick)
        parts.append(f'<line class="grid" x1="{LEFT}" y1="{y:.1f}" x2="{WIDTH - RIGHT}" y2="{y:.1f}"/>')
        parts.append(f'<text class="tick" x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{escape(figure(tick))}</text>')
    parts.append(f'<text class="axis" x="{LEFT}" y="{TOP - 4}">{escape(up_title)}</text>')
    for name, row, cost in points:
        estimate = up_of(row)
        x, y = across(cost), up(estimate.value)
        mark = "point reference" if name == comparison.reference else "point"
        spoken = f"{name}: {shown(cost)}, {figure(estimate.value)}, 95 % interval {figure(estimate.low)} to {figure(estimate.high)}"
        parts.append(f'<line class="whisker" x1="{x:.1f}" y1="{up(estimate.low):.1f}" x2="{x:.1f}" y2="{up(estimate.high):.1f}"/>')
        parts.append(f'<circle class="{mark}" cx="{x:.1f}" cy="{y:.1f}" r="5"><title>{escape(spoken)}</title></circle>')
        parts.append(f'<text class="label" x="{x + 8:.1f}" y="{y - 6:.1f}">{escape(_short(name))}</text>')
    summary = "; ".join(f"{name}: {shown(cost)}, {figure(up_of(row).value)}" for name, row, cost in points)
    return _svg(f"{up_title} against {title}", summary, parts, HEIGHT)


def _cost_scale(values: Sequence[float], start: float, end: float) -> Scale:
    low, high = min(values), max(values)
    if low > 0 and high > WIDE * low:
        return Scale(low=low / 1.5, high=high * 1.5, start=start, end=end, logarithmic=True)
    return _scale(values, start, end)


def _ticks_below(scale: Scale, y: float, shown: Callable[[float], str]) -> str:
    line = f'<line class="base" x1="{scale.start:.1f}" y1="{y:.1f}" x2="{scale.end:.1f}" y2="{y:.1f}"/>'
    marks = []
    for tick in scale.ticks():
        text = escape("0" if tick == 0 else shown(tick))
        marks.append(f'<text class="tick" x="{scale(tick):.1f}" y="{y + 16:.1f}" text-anchor="middle">{text}</text>')
    return line + "".join(marks)


def _axis_title(title: str, x: float, y: float) -> str:
    return f'<text class="axis" x="{x:.1f}" y="{y:.1f}" text-anchor="middle">{escape(title)}</text>'


def _whisker_across(low: float, high: float, y: float) -> str:
    ends = "".join(f'<line class="whisker" x1="{x:.1f}" y1="{y - 4:.1f}" x2="{x:.1f}" y2="{y + 4:.1f}"/>' for x in (low, high))
    return f'<line class="whisker" x1="{low:.1f}" y1="{y:.1f}" x2="{high:.1f}" y2="{y:.1f}"/>{ends}'


def _svg(title: str, summary: str, parts: Sequence[str], height: float) -> str:
    return (
        f'<svg role="img" viewBox="0 0 {WIDTH} {height:.0f}" aria-label="{escape(f"{title}. {summary}")}">'
        f"<desc>{escape(summary)}</desc>{''.join(parts)}</svg>"
    )


def _spoken(name: str, row: Measured) -> str:
    return f"{name}: {figure(row.quality.value)}, 95 % interval {figure(row.quality.low)} to {figure(row.quality.high)}"


def _short(name: str) -> str:
    return name if len(name) <= 18 else f"{name[:17]}…"
