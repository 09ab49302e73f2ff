"""`foreword cost`: what success costs, from the ledger."""

from __future__ import annotations

import csv
import io
import json
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from foreword.cli._console import say, stdout
from foreword.cli._options import JsonOption
from foreword.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

DIMENSIONS = ("task-type", "tenant", "user", "model", "asked-model", "prompt", "prefix", "week", "status", "cache")
LEFT = ("stage", "currency", "saved")
SILENT = ("unpriced", "retries", "fallbacks")
DIGITS = 4
"""Of money, those after the leading zeros."""


def cost(
    by: Annotated[
        str,
        typer.Option(
            "--by",
            metavar="NAMES",
            help="Comma-separated: task-type, tenant, user, model, asked-model, prompt, prefix, week, status, cache; or stage.",
        ),
    ] = "task-type",
    since: Annotated[str | None, typer.Option(metavar="WHEN", help="A date, or how long ago: 24h, 7d, 4w.", show_default="ever")] = None,
    until: Annotated[str | None, typer.Option(metavar="WHEN", help="The same; what came before.", show_default="now")] = None,
    tenant: Annotated[str | None, typer.Option(metavar="NAME", help="Only what this tenant asked.")] = None,
    stages: Annotated[bool, typer.Option("--stages", help="What each stage cost with each model instead.")] = False,
    config: Annotated[
        Path | None, typer.Option("--config", metavar="FILE", help="The foreword.toml whose ledger it is.", show_default=False)
    ] = None,
    ledger: Annotated[
        str | None,
        typer.Option(
            metavar="PLACE", help="The ledger: a file or a URL.", show_default="ledger.sqlite in FOREWORD_HOME, or in ~/.foreword"
        ),
    ] = None,
    as_json: JsonOption = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print comma-separated lines.")] = False,
) -> None:
    """Show what a success costs, by task type, tenant, model, prompt, prefix or week.

    Cost per success divides what the judged requests cost by how many succeeded; cost per attempt divides what all cost by how many there
    were. The two can rank differently. Requests are judged by the path's check, and by feedback, which has the last word.

    \b
    Examples:
      foreword cost
      foreword cost --by task-type,model --since 7d
      foreword cost --by week --tenant acme --csv
      foreword cost --stages --config foreword.toml --json
    """
    if as_json and as_csv:
        raise ConfigError("Give --json or --csv, and not both.")
    from foreword.cost.figures import figures
    from foreword.store.database import open_database

    place = _place(ledger, config)
    database = open_database(place)
    try:
        rows = figures(database, by, stages=stages, since=since, until=until, tenant=tenant)
    finally:
        database.close()
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
    elif as_csv:
        typer.echo(_csv(rows), nl=False)
    elif not rows:
        say(f"The ledger {place} has no requests in this period. `foreword serve --config` writes them down.")
    else:
        stdout().print(_table(rows))
        _say_what_is_unknown(rows)


def _place(ledger: str | None, config: Path | None) -> str | Path:
    """Where the ledger is. Raises `ConfigError` where there is none yet."""
    from foreword.gateway.path_server import default_ledger

    place: str | Path = ledger or default_ledger()
    if config is not None:
        from foreword.gateway.path_settings import read_settings

        if ledger is not None:
            raise ConfigError("Give --config or --ledger, and not both.")
        place = read_settings(config).store.ledger or place
    if place == "none":
        raise ConfigError(f"{config} keeps no ledger (`store.ledger` is `none`), so there is nothing to report.")
    if "://" not in str(place) and not Path(place).is_file():
        raise ConfigError(f"There is no ledger at {place}. `foreword serve --config` makes one; name another with --ledger.")
    return place


def _csv(rows: Sequence[dict[str, Any]]) -> str:
    written = io.StringIO()
    if rows:
        writer = csv.DictWriter(written, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows({name: json.dumps(value) if isinstance(value, dict) else value for name, value in row.items()} for row in rows)
    return written.getvalue()


def _table(rows: Sequence[dict[str, Any]]) -> Table:
    """For a screen: what is 0 in every row is left out, and a currency that all share stands once."""
    currencies = {row["currency"] for row in rows}
    silent = {name for name in SILENT if not any(row.get(name) for row in rows)}
    names = [name for name in rows[0] if name not in silent and (name != "currency" or len(currencies) > 1)]
    table = Table(box=None, pad_edge=False)
    for name in names:
        told = f" ({next(iter(currencies))})" if name == "cost" and len(currencies) == 1 else ""
        table.add_column(name.replace("_", " ") + told, justify="left" if name in LEFT or name in DIMENSIONS else "right")
    for row in rows:
        table.add_row(*(_shown(name, row[name]) for name in names))
    return table


def _say_what_is_unknown(rows: Sequence[dict[str, Any]]) -> None:
    unpriced = sum(row["unpriced"] for row in rows)
    if unpriced:
        what = "charges" if "stage" in rows[0] else "requests"
        say(f"The price of a part of {unpriced} {what} is unknown; they are not in any cost. Give the model a `price` or a `provider`.")


def _shown(name: str, value: Any) -> str:
    if value is None:
        return "unknown" if name.startswith("cost") else "-"
    if isinstance(value, dict):
        return ", ".join(f"{lever} {_rounded(amount)}" for lever, amount in value.items()) or "-"
    if name.endswith("_rate"):
        return f"{value:.1%}"
    return _rounded(value) if name.startswith("cost") else str(value)


def _rounded(amount: str) -> str:
    """To so many digits behind the leading zeros; nothing that is not 0 is shown as 0."""
    value = Decimal(amount)
    if not value:
        return "0"
    places = max(2, DIGITS - 1 - value.adjusted())
    return format(value.quantize(Decimal(1).scaleb(-places)), "f")
