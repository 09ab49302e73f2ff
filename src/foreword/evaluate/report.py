"""A comparison on paper: plain cells for a terminal table, JSON, Markdown, and one HTML page that needs nothing else.

The HTML page carries its own style, script and pictures (inline SVG), so that it can be mailed or kept beside the model.
Its skeleton is `report.html` in this folder.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from importlib.resources import files
from pathlib import Path
from string import Template

from foreword.evaluate.column import columns, cost_number, ended
from foreword.evaluate.comparison import Comparison
from foreword.evaluate.picture import bars, scatter
from foreword.evaluate.row import ContenderRow
from foreword.evaluate.wording import escape, figure, money, seconds

TEMPLATE = "report.html"


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A table of plain texts; the first column is the contender."""

    headers: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    failures: tuple[tuple[str, str], ...]


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
    lines += [f"- {text}" for text in troubles(comparison)]
    lines += ["", *(f"{text}  " for text in caption(comparison))]
    return "\n".join(lines).replace("\n\n\n", "\n\n") + "\n"


def to_html(comparison: Comparison) -> str:
    """One self-contained page: sortable table, pictures, sample answers; light and dark."""
    template = Template(files("foreword.evaluate").joinpath(TEMPLATE).read_text(encoding="utf-8"))
    return template.substitute(
        title=escape(f"{comparison.task}: {len(comparison.rows)} contenders on {comparison.model}"),
        caption="".join(f"<p>{escape(text)}</p>" for text in caption(comparison)),
        head=_html_head(comparison),
        body="".join(_html_row(comparison, row) for row in comparison.ranked()),
        bars=bars(comparison),
        positions=scatter(comparison, "prompt positions per request", lambda row: row.prompt_positions, lambda x: f"{x:.0f}"),
        training=scatter(comparison, f"training time ({comparison.clock})", lambda row: row.training_seconds, seconds),
        costs=_costs(comparison),
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
    trained = any(row.measured is not None and row.measured.trained_parameters for row in comparison.rows)
    asked = any(row.strategy for row in comparison.rows) and not trained
    training = "" if asked else f"Training budget {seconds(comparison.budget_seconds)} ({comparison.clock} clock) each. "
    versions = ", ".join(f"{name} {version}" for name, version in comparison.versions.items())
    return (
        f"Task {comparison.task} ({comparison.kind}), model {comparison.model} on {comparison.device}; "
        f"{comparison.train_rows} training rows, judged on {comparison.dev_rows} dev rows, seed {comparison.seed}.",
        f"{training}A success is {comparison.success_rule}.{hour}{token or ('' if hour else ' No price was given.')}",
        f"{comparison.created:%Y-%m-%d %H:%M} UTC, {comparison.machine}; {versions}.",
    )


def _costs(comparison: Comparison) -> str:
    """What a success costs against how often there is one."""
    priced = comparison.price is not None
    return scatter(
        comparison,
        f"cost per success ({comparison.price.currency if comparison.price else 'machine time'})",
        lambda row: cost_number(row, priced=priced),
        (lambda x: money(Decimal(repr(x)))) if priced else seconds,
        up_title="success",
        up_of=lambda row: row.success_rate,
    )


def troubles(comparison: Comparison) -> tuple[str, ...]:
    """A line for each contender of which rows did not end with an answer: how many, and why."""
    lines = []
    for row in comparison.ranked():
        if row.measured is not None and row.measured.asking is not None and row.measured.asking.reasons:
            told = "; ".join(f"{count} × {reason}" for reason, count in row.measured.asking.reasons.items())
            lines.append(f"{row.contender}: {ended(row.measured)}. {told}")
    return tuple(lines)


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def _html_head(comparison: Comparison) -> str:
    titles = [("contender", "The way that was tried."), *((column.title, column.meaning) for column in columns(comparison))]
    return "".join(
        f'<th scope="col" title="{escape(meaning)}"><button type="button" data-column="{index}">{escape(title)}</button></th>'
        for index, (title, meaning) in enumerate(titles)
    )


def _html_row(comparison: Comparison, row: ContenderRow) -> str:
    shown = columns(comparison)
    name = f'<th scope="row" data-value="{escape(row.contender)}">{escape(row.contender)}</th>'
    if row.measured is None:
        return f'<tr class="failed">{name}<td colspan="{len(shown)}">failed: <code>{escape(row.failed or "")}</code></td></tr>'
    cells = []
    for column in shown:
        number = column.number(row.measured)
        value = "" if number is None else repr(float(number))
        cells.append(f'<td data-value="{value}">{escape(column.text(row.measured))}</td>')
    mark = ' class="reference"' if row.contender == comparison.reference else ""
    return f"<tr{mark}>{name}{''.join(cells)}</tr>"


def _html_notes(comparison: Comparison) -> str:
    lines = []
    for row in comparison.ranked():
        if row.measured is not None:
            others = ", ".join(f"{name} {figure(value)}" for name, value in row.measured.scores.items())
            reasons = row.measured.asking.reasons if row.measured.asking else {}
            trouble = tuple(f"{count} rows: {reason}" for reason, count in reasons.items())
            text = "; ".join((others, f"weights in {row.measured.dtype}", *row.measured.notes, *trouble))
            lines.append(f"<dt>{escape(row.contender)}</dt><dd>{escape(text)}</dd>")
    return f"<dl>{''.join(lines)}</dl>" if lines else "<p>Nothing ran.</p>"


def _html_samples(comparison: Comparison) -> str:
    blocks = []
    for index, sample in enumerate(comparison.samples):
        answers = "".join(
            f"<tr><th scope='row'>{escape(row.contender)}</th><td>{escape(row.measured.sample_answers[index])}</td></tr>"
            for row in comparison.ranked()
            if row.measured is not None
        )
        wanted = f"<tr class='wanted'><th scope='row'>wanted</th><td>{escape(sample.references[0])}</td></tr>"
        blocks.append(f"<details><summary>{escape(sample.prompt)}</summary><table>{wanted}{answers}</table></details>")
    return "".join(blocks)
