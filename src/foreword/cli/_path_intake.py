"""`foreword path train-intake`: a few labelled lines become what tells task types apart."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from foreword.cli._console import plain, say, stdout
from foreword.cli._options import JsonOption
from foreword.errors import ConfigError, DataError

if TYPE_CHECKING:
    from foreword.gateway.intake.training import Training


def train_intake(
    data: Annotated[str, typer.Option("--data", metavar="FILE", help="Lines with `text` and `label`, the label being the task type.")],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FILE", help="Where the result goes.")] = Path("intake.json"),
    config: Annotated[
        Path | None,
        typer.Option("--config", metavar="FILE", help="A foreword.toml whose task types the labels must be.", show_default=False),
    ] = None,
    missed: Annotated[
        float, typer.Option("--missed", min=0.0, max=0.99, help="Share of rightly recognised lines that may fall short of the threshold.")
    ] = 0.05,
    embedder: Annotated[str, typer.Option("--embedder", help="What makes vectors of texts.")] = "wordllama",
    as_json: JsonOption = False,
) -> None:
    """Train what tells a request's task type where no rule does: the labelled lines that it is most like.

    Five to twenty lines of each type do. Lines labelled `default` show what belongs to no type, and then the threshold is chosen by them
    instead of by --missed. Accuracy is measured by leaving out one line at a time. A foreword.toml takes the result as `intake_model`.

    \b
    Examples:
      foreword path train-intake --data lines.jsonl -o intake.json
      foreword path train-intake --data lines.csv -o intake.json --config foreword.toml --missed 0.02
    """
    from foreword.data import read
    from foreword.gateway.intake.training import train
    from foreword.retrieval import embedder as embedders

    rows = read(data)
    if rows.kind != "classification":
        raise DataError(f'`{data}` has no labels. Write lines such as {{"text": "Where is my parcel?", "label": "support"}}.')
    labels = [example.completions[0] for example in rows.examples]
    if config is not None:
        _check_labels(set(labels), config)
    found = train([example.prompt for example in rows.examples], labels, embedders.get(embedder), missed=missed)
    found.file.write(out)
    if as_json:
        typer.echo(json.dumps(_fields(found, out)))
        return
    stdout().print(_table(found))
    for own, given, count in found.confused[:5]:
        typer.echo(plain(f"{count} of {own} would be nearest to {given}"))
    if found.unseen is not None:
        typer.echo(f"Of lines of a type that was left out altogether, {found.unseen:.0%} get no type.")
    say(f"{found.accuracy:.1%} of {found.lines} lines get their type, each tried without itself. Written to {out}.")


def _check_labels(labels: set[str], config: Path) -> None:
    from foreword.gateway.path_settings import DEFAULT_TASK, read_settings

    unknown = sorted(labels - {*read_settings(config).tasks, DEFAULT_TASK})
    if unknown:
        raise ConfigError(f"The label `{unknown[0]}` is no task type of {config}. Add `[tasks.{unknown[0]}]`, or mend the lines.")


def _fields(found: Training, out: Path) -> dict[str, object]:
    return {
        "path": str(out),
        "embedder": found.file.embedder,
        "lines": found.lines,
        "labels": dict(zip(found.file.labels, found.file.lines, strict=True)),
        "threshold": found.file.threshold,
        "accuracy": found.accuracy,
        "nearest_accuracy": found.nearest,
        "accuracy_by_label": found.by_label,
        "default_rejected": found.unlike,
        "unseen_rejected": found.unseen,
        "confused": [{"label": own, "nearest": given, "lines": count} for own, given, count in found.confused],
    }


def _table(found: Training) -> Table:
    table = Table(title=f"threshold {found.file.threshold}")
    table.add_column("task type")
    for column in ("lines", "get their type"):
        table.add_column(column, justify="right")
    for label, count in zip(found.file.labels, found.file.lines, strict=True):
        table.add_row(Text(plain(label)), str(count), f"{found.by_label[label]:.0%}")
    if found.unlike is not None:
        table.add_row("default", str(found.lines - sum(found.file.lines)), f"{found.unlike:.0%}")
    return table
