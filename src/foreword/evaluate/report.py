"""A comparison on paper: plain cells for a terminal table, JSON, Markdown, and one HTML page that needs nothing else.

The HTML page carries its own style, script and pictures (inline SVG), so that it can be mailed or kept beside the model.
Its skeleton is `report.html` in this folder.
"""

from __future__ import annotations

import html
import math
import os
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from importlib.resources import files
from pathlib import Path
from string import Template

from foreword.evaluate.comparison import Comparison, ContenderRow, Difference, Measured

TEMPLATE = "report.html"
UNKNOWN = "–"
WIDTH, HEIGHT = 460, 300
LEFT, RIGHT, TOP, BOTTOM = 56, 16, 16, 44
BAR_STEP = 34


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One column: its title, what it means, the cell's text, and the number that it sorts by (None sorts last)."""

    title: str
    meaning: str
    text: Callable[[Measured], str]
    number: Callable[[Measured], float | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A table of plain texts; the first column is the contender."""

    headers: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    failures: tuple[tuple[str, str], ...]


def columns(comparison: Comparison) -> tuple[Column, ...]:
    """The columns after the contender's name, in order."""
    unit = "machine seconds" if comparison.price is None else comparison.price.currency
    return (
        Column(
            title=comparison.primary,
            meaning="Primary score with its 95 % bootstrap interval.",
            text=lambda row: f"{figure(row.quality.value)} [{figure(row.quality.low)}, {figure(row.quality.high)}]",
            number=lambda row: row.quality.value,
        ),
        Column(
            title=f"vs {comparison.reference or UNKNOWN}",
            meaning="Difference to the reference on the same rows, with the p-value of a paired bootstrap, Holm-adjusted.",
            text=lambda row: difference(row.against_reference),
            number=lambda row: None if row.against_reference is None else row.against_reference.value,
        ),
        Column(
            title="success",
            meaning=f"Share of dev rows with {comparison.success_rule}, with its 95 % Wilson interval.",
            text=lambda row: f"{row.success_rate.value:.0%} [{row.success_rate.low:.0%}, {row.success_rate.high:.0%}]",
            number=lambda row: row.success_rate.value,
        ),
        Column(
            title="cost/success",
            meaning=f"In {unit}: all requests are paid for, only successes count. {UNKNOWN} where nothing succeeded.",
            text=lambda row: cost(row, priced=comparison.price is not None),
            number=lambda row: _cost_number(row, priced=comparison.price is not None),
        ),
        Column(
            title="positions",
            meaning="Mean positions attended before the first answer token: prefix + prompt tokens.",
            text=lambda row: f"{row.prompt_positions:.0f}" + (f" ({row.prefix_positions} prefix)" if row.prefix_positions else ""),
            number=lambda row: row.prompt_positions,
        ),
        Column(
            title="latency",
            meaning="Median wall time of a single request.",
            text=lambda row: seconds(row.latency_seconds),
            number=lambda row: row.latency_seconds,
        ),
        Column(
            title="trained",
            meaning="Numbers that training was free to change.",
            text=lambda row: count(row.trained_parameters),
            number=lambda row: row.trained_parameters,
        ),
        Column(
            title="artifact",
            meaning="What has to be kept per task.",
            text=lambda row: size(row.artifact_bytes),
            number=lambda row: row.artifact_bytes,
        ),
        Column(
            title="training",
            meaning=f"Training time, {comparison.clock} clock; the budget was {seconds(comparison.budget_seconds)}.",
            text=lambda row: seconds(row.training_seconds) if row.trained_parameters else UNKNOWN,
            number=lambda row: row.training_seconds,
        ),
        Column(
            title="memory",
            meaning="Highest memory of the contender's process, training and answering.",
            text=lambda row: size(row.peak_memory_bytes),
            number=lambda row: row.peak_memory_bytes,
        ),
    )


def to_table(comparison: Comparison) -> Table:
    """Cells for a terminal; failed contenders are lines of their own."""
    shown = columns(comparison)
    done = [(row.contender, row.measured) for row in comparison.ranked() if row.measured is not None]
    return Table(
        headers=("contender", *(column.title for column in shown)),
        rows=tuple((name, *(column.text(measured) for column in shown)) for name, measured in done),
        failures=tuple((row.contender, row.failed or "") for row in comparison.rows if row.measured is None),
    )


def to_json(comparison: Comparison) -> str:
    """All there is, with money as decimal strings; `Comparison.model_validate_json` reads it back."""
    return comparison.model_dump_json(indent=2) + "\n"


def to_markdown(comparison: Comparison) -> str:
    """The table as GitHub Markdown, with how it was made under it."""
    table = to_table(comparison)
    numeric = ["---", *["---:"] * (len(table.headers) - 1)]
    lines = [_line(table.headers), _line(numeric), *(_line(row) for row in table.rows)]
    lines += ["", *(f"- **{name}** failed: {reason.splitlines()[0] if reason else 'no reason given'}" for name, reason in table.failures)]
    lines += ["", *(f"{text}  " for text in caption(comparison))]
    return "\n".join(lines).replace("\n\n\n", "\n\n") + "\n"


def to_html(comparison: Comparison) -> str:
    """One self-contained page: sortable table, pictures, sample answers; light and dark."""
    template = Template(files("foreword.evaluate").joinpath(TEMPLATE).read_text(encoding="utf-8"))
    return template.substitute(
        title=_escape(f"{comparison.task}: {len(comparison.rows)} contenders on {comparison.model}"),
        caption="".join(f"<p>{_escape(text)}</p>" for text in caption(comparison)),
        head=_html_head(comparison),
        body="".join(_html_row(comparison, row) for row in comparison.ranked()),
        bars=_bars(comparison),
        positions=_scatter(comparison, "prompt positions per request", lambda row: row.prompt_positions, lambda x: f"{x:.0f}"),
        training=_scatter(comparison, f"training time ({comparison.clock})", lambda row: row.training_seconds, seconds),
        notes=_html_notes(comparison),
        samples=_html_samples(comparison),
        data=comparison.model_dump_json().replace("<", "\\u003c"),
    )


def write(text: str, path: Path) -> None:
    """Writes a report whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with partial.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def caption(comparison: Comparison) -> tuple[str, ...]:
    """How the table was made, in sentences."""
    price = comparison.price
    hour = "" if price is None or price.machine_hour is None else f" Price: {price.machine_hour} {price.currency} per machine-hour."
    token = (
        ""
        if price is None or price.input_per_million is None
        else f" Price per million tokens: {price.input_per_million} in, {price.output_per_million} out ({price.currency})."
    )
    versions = ", ".join(f"{name} {version}" for name, version in comparison.versions.items())
    return (
        f"Task {comparison.task} ({comparison.kind}), model {comparison.model} on {comparison.device}; "
        f"{comparison.train_rows} training rows, judged on {comparison.dev_rows} dev rows, seed {comparison.seed}.",
        f"Training budget {seconds(comparison.budget_seconds)} ({comparison.clock} clock) each. "
        f"A success is {comparison.success_rule}.{hour}{token or ('' if hour else ' No price was given.')}",
        f"{comparison.created:%Y-%m-%d %H:%M} UTC, {comparison.machine}; {versions}.",
    )


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


def cost(row: Measured, *, priced: bool) -> str:
    """Money per success where a price was given, else machine seconds."""
    if priced:
        return UNKNOWN if row.cost_per_success is None else money(row.cost_per_success)
    return UNKNOWN if row.machine_seconds_per_success is None else seconds(row.machine_seconds_per_success)


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


def _cost_number(row: Measured, *, priced: bool) -> float | None:
    if not priced:
        return row.machine_seconds_per_success
    return None if row.cost_per_success is None else float(row.cost_per_success)


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def _escape(text: str) -> str:
    return html.escape(text, quote=True)


def _html_head(comparison: Comparison) -> str:
    titles = [("contender", "The way that was tried."), *((column.title, column.meaning) for column in columns(comparison))]
    return "".join(
        f'<th scope="col" title="{_escape(meaning)}"><button type="button" data-column="{index}">{_escape(title)}</button></th>'
        for index, (title, meaning) in enumerate(titles)
    )


def _html_row(comparison: Comparison, row: ContenderRow) -> str:
    shown = columns(comparison)
    name = f'<th scope="row" data-value="{_escape(row.contender)}">{_escape(row.contender)}</th>'
    if row.measured is None:
        return f'<tr class="failed">{name}<td colspan="{len(shown)}">failed: <code>{_escape(row.failed or "")}</code></td></tr>'
    cells = []
    for column in shown:
        number = column.number(row.measured)
        value = "" if number is None else repr(float(number))
        cells.append(f'<td data-value="{value}">{_escape(column.text(row.measured))}</td>')
    mark = ' class="reference"' if row.contender == comparison.reference else ""
    return f"<tr{mark}>{name}{''.join(cells)}</tr>"


def _html_notes(comparison: Comparison) -> str:
    lines = []
    for row in comparison.ranked():
        if row.measured is not None:
            others = ", ".join(f"{name} {figure(value)}" for name, value in row.measured.scores.items())
            text = "; ".join((others, f"weights in {row.measured.dtype}", *row.measured.notes))
            lines.append(f"<dt>{_escape(row.contender)}</dt><dd>{_escape(text)}</dd>")
    return f"<dl>{''.join(lines)}</dl>" if lines else "<p>Nothing ran.</p>"


def _html_samples(comparison: Comparison) -> str:
    blocks = []
    for index, sample in enumerate(comparison.samples):
        answers = "".join(
            f"<tr><th scope='row'>{_escape(row.contender)}</th><td>{_escape(row.measured.sample_answers[index])}</td></tr>"
            for row in comparison.ranked()
            if row.measured is not None
        )
        wanted = f"<tr class='wanted'><th scope='row'>wanted</th><td>{_escape(sample.references[0])}</td></tr>"
        blocks.append(f"<details><summary>{_escape(sample.prompt)}</summary><table>{wanted}{answers}</table></details>")
    return "".join(blocks)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Scale:
    """Maps values linearly from low..high to pixels."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)

    def ticks(self, most: int = 5) -> list[float]:
        """Round values inside the scale: multiples of 1, 2 or 5 times a power of ten."""
        rough = (self.high - self.low) / most
        power = 10 ** math.floor(math.log10(rough))
        step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough)
        first = math.ceil(self.low / step - 1e-9)
        last = math.floor(self.high / step + 1e-9)
        return [number * step for number in range(first, last + 1)]


def _measured_rows(comparison: Comparison) -> list[tuple[str, Measured]]:
    """Rows whose quality can be drawn."""
    rows = [(row.contender, row.measured) for row in comparison.ranked() if row.measured is not None]
    return [(name, row) for name, row in rows if all(map(math.isfinite, (row.quality.value, row.quality.low, row.quality.high)))]


def _scale(values: Sequence[float], start: float, end: float) -> _Scale:
    low, high = min(0.0, *values), max(values)
    return _Scale(low=low, high=low + (high - low) * 1.08 if high > low else low + 1, start=start, end=end)


def _bars(comparison: Comparison) -> str:
    """Quality of each contender as a bar, the interval as a line across its end."""
    rows = _measured_rows(comparison)
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
        parts.append(f'<text class="label" x="{left - 8}" y="{middle + 4:.1f}" text-anchor="end">{_escape(_short(name))}</text>')
        parts.append(
            f'<rect class="{mark}" x="{begin:.1f}" y="{top + 2}" width="{end - begin:.1f}" height="{BAR_STEP - 10}">'
            f"<title>{_escape(_spoken(name, row))}</title></rect>"
        )
        parts.append(_whisker_across(across(row.quality.low), across(row.quality.high), middle))
    summary = "; ".join(_spoken(name, row) for name, row in rows)
    return _svg(f"{comparison.primary} by contender", summary, parts, height)


def _scatter(comparison: Comparison, title: str, x_of: Callable[[Measured], float], shown: Callable[[float], str]) -> str:
    """Quality against one cost; a point per contender with its interval."""
    rows = _measured_rows(comparison)
    if not rows:
        return "<p>Nothing to draw.</p>"
    across = _scale([x_of(row) for _, row in rows], LEFT, WIDTH - RIGHT - 60)
    up = _scale([bound for _, row in rows for bound in (row.quality.low, row.quality.high)], HEIGHT - BOTTOM, TOP)
    parts = [_ticks_below(across, HEIGHT - BOTTOM, shown), _axis_title(title, (LEFT + WIDTH) / 2, HEIGHT - 8)]
    for tick in up.ticks():
        y = up(tick)
        parts.append(f'<line class="grid" x1="{LEFT}" y1="{y:.1f}" x2="{WIDTH - RIGHT}" y2="{y:.1f}"/>')
        parts.append(f'<text class="tick" x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{_escape(figure(tick))}</text>')
    parts.append(f'<text class="axis" x="{LEFT}" y="{TOP - 4}">{_escape(comparison.primary)}</text>')
    for name, row in rows:
        x, y = across(x_of(row)), up(row.quality.value)
        mark = "point reference" if name == comparison.reference else "point"
        parts.append(f'<line class="whisker" x1="{x:.1f}" y1="{up(row.quality.low):.1f}" x2="{x:.1f}" y2="{up(row.quality.high):.1f}"/>')
        parts.append(f'<circle class="{mark}" cx="{x:.1f}" cy="{y:.1f}" r="5"><title>{_escape(_spoken(name, row))}</title></circle>')
        parts.append(f'<text class="label" x="{x + 8:.1f}" y="{y - 6:.1f}">{_escape(_short(name))}</text>')
    summary = "; ".join(f"{name}: {shown(x_of(row))}, {figure(row.quality.value)}" for name, row in rows)
    return _svg(f"{comparison.primary} against {title}", summary, parts, HEIGHT)


def _ticks_below(scale: _Scale, y: float, shown: Callable[[float], str]) -> str:
    line = f'<line class="base" x1="{scale.start:.1f}" y1="{y:.1f}" x2="{scale.end:.1f}" y2="{y:.1f}"/>'
    marks = []
    for tick in scale.ticks():
        text = _escape("0" if tick == 0 else shown(tick))
        marks.append(f'<text class="tick" x="{scale(tick):.1f}" y="{y + 16:.1f}" text-anchor="middle">{text}</text>')
    return line + "".join(marks)


def _axis_title(title: str, x: float, y: float) -> str:
    return f'<text class="axis" x="{x:.1f}" y="{y:.1f}" text-anchor="middle">{_escape(title)}</text>'


def _whisker_across(low: float, high: float, y: float) -> str:
    ends = "".join(f'<line class="whisker" x1="{x:.1f}" y1="{y - 4:.1f}" x2="{x:.1f}" y2="{y + 4:.1f}"/>' for x in (low, high))
    return f'<line class="whisker" x1="{low:.1f}" y1="{y:.1f}" x2="{high:.1f}" y2="{y:.1f}"/>{ends}'


def _svg(title: str, summary: str, parts: Sequence[str], height: float) -> str:
    return (
        f'<svg role="img" viewBox="0 0 {WIDTH} {height:.0f}" aria-label="{_escape(f"{title}. {summary}")}">'
        f"<desc>{_escape(summary)}</desc>{''.join(parts)}</svg>"
    )


def _spoken(name: str, row: Measured) -> str:
    return f"{name}: {figure(row.quality.value)}, 95 % interval {figure(row.quality.low)} to {figure(row.quality.high)}"


def _short(name: str) -> str:
    return name if len(name) <= 18 else f"{name[:17]}…"
