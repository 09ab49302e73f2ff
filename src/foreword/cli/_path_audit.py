"""`foreword path audit`: what the parts of contexts cost, and how often they mattered."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from foreword.cli._console import plain, say, stdout
from foreword.cli._options import JsonOption
from foreword.errors import ConfigError

if TYPE_CHECKING:
    from foreword.gateway.assembling.audit import Audit
    from foreword.store.database import Database

SHOWN = 60
"""Characters of a sentence in the table."""


def audit(
    captures: Annotated[
        str | None,
        typer.Option("--from", metavar="PLACE", help="Captures: a file, or a postgresql:// URL.", show_default="as --config says"),
    ] = None,
    config: Annotated[Path, typer.Option("--config", metavar="FILE", help="A foreword.toml with `store.capture`.")] = Path("foreword.toml"),
    task: Annotated[str | None, typer.Option("--task", help="Only this task type.", show_default=False)] = None,
    since: Annotated[
        datetime | None, typer.Option("--since", formats=["%Y-%m-%d"], help="Only from this day on.", show_default=False)
    ] = None,
    most: Annotated[int, typer.Option("--most", min=1, help="Rows of each table, those that cost most.")] = 20,
    as_json: JsonOption = False,
) -> None:
    """Report what template sentences, tools and passages cost in captured traffic, and how often answers made use of them.

    Use is what can be seen without asking again: an answer has words of a sentence or a passage that the question has not, a tool was
    called, a passage's number was named. A sentence about form can matter and leave no word, so little use is a reason to try without it:
    `foreword prompt audit` does. Token counts are estimates; what models billed is told beside them, by week.

    \b
    Examples:
      foreword path audit
      foreword path audit --from captures.sqlite --task support --since 2026-01-01
      foreword path audit --json
    """
    from foreword.gateway.assembling.audit import audit as run
    from foreword.telemetry.capture import read

    database = _opened(captures, config)
    try:
        found = run(read(database, task=task, since=None if since is None else since.replace(tzinfo=UTC)))
    finally:
        database.close()
    if as_json:
        typer.echo(json.dumps(asdict(found), indent=2))
    elif not found.requests:
        say("No requests are captured here yet.")
    else:
        _show(found, most)


def _opened(captures: str | None, config: Path) -> Database:
    from foreword.store.database import open_database

    place = captures
    if place is None:
        from foreword.gateway.path_settings import read_settings

        place = read_settings(config).store.capture
        if place is None:
            raise ConfigError(f"{config} captures nothing. Set `capture` under `[store]`, or name a file of captures with --from.")
    if "://" not in place and not Path(place).is_file():
        raise ConfigError(f"There are no captures at {place}. Serve with `capture` under `[store]` for a while first.")
    return open_database(place)


def _show(found: Audit, most: int) -> None:
    sentences = [
        (use.task, _short(use.text), str(use.tokens), str(use.requests), "-" if use.used is None else f"{use.used:.0%}")
        for use in found.sentences
    ]
    tools = [(use.task, use.name, str(use.tokens), str(use.offered), str(use.called)) for use in found.tools]
    passages = [(use.task, use.source, str(use.tokens), str(use.shown), f"{use.used:.0%}", str(use.cited)) for use in found.passages]
    growth = [
        (
            each.task,
            each.week,
            str(each.requests),
            *(f"{tokens:,.0f}" for tokens in (each.instructions, each.history, each.passages, each.tools, each.question)),
            "-" if each.billed is None else f"{each.billed:,.0f}",
        )
        for each in found.growth
    ]
    _print("Sentences and examples", ("task", "sentence", "tokens", "requests", "words used"), sentences, most)
    _print("Tools", ("task", "tool", "tokens", "offered", "called"), tools, most)
    _print("Passages", ("task", "passage", "tokens", "shown", "words used", "cited"), passages, most)
    parts = ("instructions", "history", "passages", "tools", "question", "billed input")
    _print("Tokens of a request, by week", ("task", "week", "requests", *parts), growth, len(growth))
    say(f"{found.requests:,} captured requests. Words used say what answers took up, not what they would have been without it.")


def _print(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], most: int) -> None:
    if not rows:
        return
    left = f"; {len(rows) - most:,} more" if len(rows) > most else ""
    table = Table(title=f"{title}{left}", title_justify="left")
    for place, column in enumerate(columns):
        table.add_column(column, justify="left" if place < 2 else "right")
    for row in rows[:most]:
        table.add_row(*(Text(plain(cell)) for cell in row))
    stdout().print(table)


def _short(text: str) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= SHOWN else f"{flat[: SHOWN - 1]}…"
