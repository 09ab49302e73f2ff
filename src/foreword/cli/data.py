"""`foreword data check`: what to know about data before tuning on them, and the fixes that are safe."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from foreword.data.advice import lines_text
from foreword.data.checking import check
from foreword.data.dataset import Dataset
from foreword.data.excerpt import excerpt
from foreword.data.fixing import dedupe as without_duplicates
from foreword.data.fixing import split as split_rows
from foreword.data.fixing import write_jsonl
from foreword.data.hub import SCHEME
from foreword.data.reading import read
from foreword.data.report import DataReport, Lengths, Side, Warned
from foreword.errors import ConfigError

app = typer.Typer(help="Look at data before tuning on them.", no_args_is_help=True)
_LABELS_SHOWN = 20
_GROUPS_SHOWN = 3


@app.callback()
def data() -> None:
    """Look at data before tuning on them."""


@app.command("check")
def check_command(
    train: Annotated[str, typer.Argument(metavar="TRAIN", help="JSONL, CSV or JSON list (also .gz), or hf:NAME[:CONFIG].")],
    dev: Annotated[str | None, typer.Option(help="Dev data, to look for leakage and unknown labels.")] = None,
    model: Annotated[str | None, typer.Option(help="Count tokens as this model does, and name rows beyond its window.")] = None,
    window: Annotated[int | None, typer.Option(min=1, help="Positions for prompt and answer; the model's own by default.")] = None,
    dedupe: Annotated[bool, typer.Option("--dedupe", help="Drop exact repetitions, and training rows that are in the dev data.")] = False,
    split: Annotated[float | None, typer.Option(help="Set this share aside as dev data, near-duplicates kept together.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of --split.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Folder for train.jsonl and dev.jsonl of --dedupe and --split.")] = None,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Leave unusable rows out (and list them) instead of stopping.")] = False,
    train_split: Annotated[str | None, typer.Option(help="Part of an hf: data set for TRAIN; `train` by default.")] = None,
    dev_split: Annotated[str | None, typer.Option(help="Part of an hf: data set for --dev; `validation` by default.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as one JSON object.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 1 when a warning remains.")] = False,
) -> None:
    """Report counts, lengths, label balance, duplicates, leakage and truncation; optionally write a mended copy."""
    _refuse_misfits(split=split, dedupe=dedupe, dev=dev, out=out, window=window, model=model)
    on_bad = "skip" if skip_bad else "fail"
    train_data = read(train, on_bad=on_bad, split=train_split)
    dev_data = None
    if dev is not None:
        dev_data = read(dev, on_bad=on_bad, split=dev_split or ("validation" if dev.startswith(SCHEME) else None))
    count_tokens, limit = _counter(model, window)
    report = check(train_data, dev_data, count_tokens=count_tokens, window=limit)
    fixed = _fixed(train_data, dev_data, dedupe=dedupe, share=split, seed=seed)
    final, written = report, []
    if out is not None and fixed is not None:
        written = _write(fixed, out, inputs=[train, *([dev] if dev else [])])
        final = check(fixed.train, fixed.dev, count_tokens=count_tokens, window=limit)
    if as_json:
        typer.echo(json.dumps(_as_json(report, final, fixed, written), ensure_ascii=False, indent=2))
    else:
        _show(Console(), report, final, fixed, written)
    if strict and final.warnings:
        raise typer.Exit(1)


def _refuse_misfits(*, split: float | None, dedupe: bool, dev: str | None, out: Path | None, window: int | None, model: str | None) -> None:
    if split is not None and dev is not None:
        raise ConfigError("--split makes dev data from TRAIN, and --dev gives some already. Leave one of them out.")
    if (split is not None or dedupe) and out is None:
        raise ConfigError("--dedupe and --split write files and never change TRAIN itself. Say where: --out FOLDER.")
    if out is not None and split is None and not dedupe:
        raise ConfigError("--out has nothing to write. Add --dedupe, --split or both.")
    if window is not None and model is None:
        raise ConfigError("--window is in tokens, so it needs a model that counts them. Add --model NAME.")


def _counter(model: str | None, window: int | None) -> tuple[Callable[[str], int] | None, int | None]:
    if model is None:
        return None, None
    from foreword.api import load

    engine = load(model).engine
    return (lambda text: len(engine.encode(text))), (window or engine.window)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Fixed:
    """The mended data, and sentences on what was done."""

    train: Dataset
    dev: Dataset | None
    notes: tuple[str, ...]


def _fixed(train: Dataset, dev: Dataset | None, *, dedupe: bool, share: float | None, seed: int) -> _Fixed | None:
    if not dedupe and share is None:
        return None
    notes = []
    if dedupe:
        clean_dev = without_duplicates(dev) if dev is not None else None
        clean = without_duplicates(train, against=clean_dev)
        notes.append(f"Training data: {len(train) - len(clean):,} rows dropped, {len(clean):,} kept.")
        if dev is not None and clean_dev is not None:
            notes.append(f"Dev data: {len(dev) - len(clean_dev):,} rows dropped, {len(clean_dev):,} kept.")
        train, dev = clean, clean_dev
    if share is not None:
        parts = split_rows(train, share, seed=seed)
        notes.append(f"Split with seed {seed} into {len(parts.train):,} training and {len(parts.dev):,} dev rows.")
        if parts.grouped_by == "prompts":
            notes.append("Near-duplicates chain through most rows, so only equal prompts were kept on one side.")
        train, dev = parts.train, parts.dev
    return _Fixed(train=train, dev=dev, notes=tuple(notes))


def _write(fixed: _Fixed, out: Path, *, inputs: Sequence[str]) -> list[Path]:
    targets = [(fixed.train, out / "train.jsonl"), *([(fixed.dev, out / "dev.jsonl")] if fixed.dev is not None else [])]
    sources = {Path(source).resolve() for source in inputs}
    for _, target in targets:
        if target.resolve() in sources:
            raise ConfigError(f"`{target}` is one of the files being checked. Choose another --out folder, so that the original stays.")
    return [write_jsonl(dataset, target) for dataset, target in targets]


def _as_json(report: DataReport, final: DataReport, fixed: _Fixed | None, written: Sequence[Path]) -> dict[str, Any]:
    result: dict[str, Any] = {"report": report.as_dict()}
    if fixed is not None:
        result["fixes"] = list(fixed.notes)
        result["written"] = [str(path) for path in written]
        result["after"] = final.as_dict()
    return result


def _show(console: Console, report: DataReport, final: DataReport, fixed: _Fixed | None, written: Sequence[Path]) -> None:
    console.print(_overview(report))
    if report.train.labels is not None:
        console.print(_balance(report))
    if (findings := _findings(report)).row_count:
        console.print(findings)
    _show_warnings(console, report.warnings, "Warnings" if fixed is None else "Warnings before the fixes")
    if fixed is None:
        return
    for note in fixed.notes:
        console.print(Text(note))
    for path in written:
        console.print(Text(f"Wrote {path}"), soft_wrap=True)
    _show_warnings(console, final.warnings, "Warnings that remain")


def _sides(report: DataReport) -> list[tuple[str, Side]]:
    return [("train", report.train), *([("dev", report.dev)] if report.dev is not None else [])]


def _overview(report: DataReport) -> Table:
    sides = _sides(report)
    table = Table(title="Data (lengths: min / median / p95 / max)", title_justify="left")
    table.add_column("")
    for name, _ in sides:
        table.add_column(name, justify="right", overflow="fold")

    def row(title: str, value: Callable[[Side], str]) -> None:
        table.add_row(title, *(Text(value(side)) for _, side in sides))

    row("file", lambda side: Path(side.path).name or side.path)
    row("kind", lambda side: side.kind)
    row("rows", lambda side: f"{side.rows:,}")
    row("rows left out", lambda side: f"{len(side.skipped):,}")
    row("completions", lambda side: f"{side.completions:,}")
    row("prompt characters", lambda side: _lengths(side.prompt_chars))
    row("completion characters", lambda side: _lengths(side.completion_chars))
    if report.train.prompt_tokens is not None:
        row("prompt tokens", lambda side: _lengths(side.prompt_tokens))
        row("completion tokens", lambda side: _lengths(side.completion_tokens))
        row(f"rows over {report.window:,} tokens", lambda side: f"{len(side.too_long):,}")
    row("prompts in several rows", lambda side: f"{side.repeated_prompts:,}")
    row("sha256", lambda side: side.sha256[:12])
    return table


def _lengths(lengths: Lengths | None) -> str:
    return "" if lengths is None else f"{lengths.minimum:,} / {lengths.median:,} / {lengths.p95:,} / {lengths.maximum:,}"


def _balance(report: DataReport) -> Table:
    sides = _sides(report)
    labels = list(dict.fromkeys(label for _, side in sides for label in side.labels or {}))
    table = Table(title=f"Labels ({len(labels):,})", title_justify="left")
    table.add_column("label", overflow="fold")
    for name, _ in sides:
        table.add_column(name, justify="right")
    half = _LABELS_SHOWN // 2
    cut = len(labels) > _LABELS_SHOWN
    for label in [*labels[:half], *labels[-half:]] if cut else labels:
        if cut and label == labels[-half]:
            table.add_row(Text(f"... {len(labels) - _LABELS_SHOWN:,} more (all with --json)", style="italic"))
        table.add_row(Text(excerpt(label)), *(_counted((side.labels or {}).get(label, 0), side.rows) for _, side in sides))
    return table


def _counted(count: int, rows: int) -> str:
    return f"{count:,} ({count / max(rows, 1):.1%})"


def _plural(found: Sequence[object], noun: str) -> str:
    return f"{len(found):,} {noun}{'' if len(found) == 1 else 's'}"


def _findings(report: DataReport) -> Table:
    table = Table(title="Found", title_justify="left", show_lines=True)
    for title in ("what", "where", "count"):
        table.add_column(title, justify="right" if title == "count" else "left")
    table.add_column("for example", overflow="fold")
    for name, side in _sides(report):
        kinds = (("duplicates", side.duplicates), ("conflicting labels", side.conflicts), ("near-duplicates", side.near_duplicates))
        for title, groups in kinds:
            if groups:
                shown = [f"{lines_text(group.lines)}: {group.excerpt}" for group in groups[:_GROUPS_SHOWN]]
                table.add_row(title, name, _plural(groups, "group"), Text("\n".join(shown)))
        if side.too_long:
            shown = [f"line {row.line}: {row.tokens:,} tokens" for row in side.too_long[:_GROUPS_SHOWN]]
            table.add_row("over the window", name, _plural(side.too_long, "row"), Text("\n".join(shown)))
    for title, exact in (("leakage", True), ("near-leakage", False)):
        if leaks := [leak for leak in report.leaks if leak.exact is exact]:
            shown = [f"dev line {x.dev_line}, train line {x.train_line} ({x.similarity:.2f}): {x.excerpt}" for x in leaks[:_GROUPS_SHOWN]]
            table.add_row(title, "both", _plural(leaks, "row"), Text("\n".join(shown)))
    return table


def _show_warnings(console: Console, warnings: Sequence[Warned], title: str) -> None:
    if not warnings:
        console.print(Text(f"{title}: none."))
        return
    console.print(Text(f"{title}: {len(warnings)}", style="bold yellow"))
    for warned in warnings:
        console.print(Text.assemble(("• ", "yellow"), (f"{warned.code}: ", "bold"), warned.message, " ", (warned.advice, "italic")))
