"""`foreword route`: learn from a table which model a question needs, and judge what that is worth."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table as Shown
from rich.text import Text

from foreword.cli._console import plain, say, stdout
from foreword.cli._options import JsonOption
from foreword.errors import ConfigError

if TYPE_CHECKING:
    from foreword.gateway.routing.curve import Evaluation, Measured

app = typer.Typer(no_args_is_help=True)

TableOption = Annotated[
    Path, typer.Option("--table", metavar="FILE", help="CSV or JSONL: question, a column for each model, and cost:MODEL or --costs.")
]
CostsOption = Annotated[
    str | None,
    typer.Option("--costs", metavar="NUMBERS", help="What a request of each tier costs, where the table does not say: 1,20."),
]
EmbedderOption = Annotated[str, typer.Option("--embedder", help="What makes vectors of questions.")]
PlotOption = Annotated[
    Path | None, typer.Option("--plot", metavar="FILE", help="Also draw the curve: a .svg, .png or .pdf file.", show_default=False)
]


@app.callback()
def route() -> None:
    """Learn from a table which model a question needs, and judge what that is worth.

    A table says of each question which models got it right: one column for each model, from 0 to 1. A foreword.toml takes the result as
    `router_model`, for task types with `router = "learned"`.
    """


@app.command("fit")
def fit(
    table: TableOption,
    tiers: Annotated[str, typer.Option("--tiers", metavar="MODELS", help="Comma-separated, cheapest first; the table's columns.")],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FILE", help="Where the router goes.")] = Path("router.safetensors"),
    costs: CostsOption = None,
    keep: Annotated[
        float, typer.Option("--keep", min=0.01, max=1.0, help="Share of the most accurate model's successes that is to be kept.")
    ] = 0.95,
    confidence: Annotated[float, typer.Option("--confidence", min=0.5, max=0.999, help="With which that is to hold.")] = 0.9,
    held_out: Annotated[
        float, typer.Option("--held-out", min=0.0, max=0.9, help="Share of the questions that are kept for judging the router.")
    ] = 0.25,
    plot: PlotOption = None,
    embedder: EmbedderOption = "wordllama",
    as_json: JsonOption = False,
) -> None:
    """Fit a router to a table, and judge it on the questions that were held out.

    A few hundred questions are a beginning; some thousand are better. What the router spares is told beside what comes of one model, of
    chance, and of the questions' length alone: where those do as well, the router is not worth having.

    \b
    Examples:
      foreword route fit --table answers.csv --tiers small,strong --costs 1,20
      foreword route fit --table answers.jsonl --tiers small:support,strong -o router.safetensors --keep 0.98 --plot curve.svg
    """
    from foreword.gateway.routing.curve import evaluate
    from foreword.gateway.routing.fitting import Features, held_out_rows
    from foreword.gateway.routing.fitting import fit as fitted_to
    from foreword.gateway.routing.table import read_table
    from foreword.retrieval import embedder as embedders

    read = read_table(table, [tier.strip() for tier in tiers.split(",")], costs=_numbers(costs))
    embed = embedders.get(embedder)
    features = Features.of(read, embed)
    fitted = fitted_to(read, embed, keep=keep, confidence=confidence, held_out=held_out, features=features)
    judged_N = held_out_rows(read, held_out)
    found = evaluate(fitted.router, read.rows(judged_N), features.rows(judged_N)) if judged_N.any() else None
    measured = {} if found is None else {"rows_judged": found.rows, "saving": found.saving.value, "kept": found.chosen_kept.value}
    router = fitted.router.frugal(fitted.router.header.frugality, measured={**fitted.router.header.measured, **measured})
    router.write(out)
    head = {"path": str(out), "rows_learned": fitted.rows, "log_loss": fitted.log_loss, "log_loss_of_means": fitted.log_loss_of_means}
    if as_json:
        typer.echo(json.dumps(head | ({} if found is None else _fields(found))))
    elif found is not None:
        _show(found)
    _draw(found, plot)
    if not fitted.keeps:
        strong = router.header.reference
        say(f"Even at its most careful this router does not surely keep {keep:.0%} of the successes of {strong}: ask that one.")
    judged = "nothing was held out to judge it on" if found is None else f"judged on {found.rows:,} others"
    say(f"Learned from {fitted.rows:,} questions, {judged}. Written to {out}.")


@app.command("eval")
def evaluate_router(
    table: TableOption,
    router: Annotated[Path, typer.Option("--router", metavar="FILE", help="What `foreword route fit` wrote.")] = Path("router.safetensors"),
    costs: CostsOption = None,
    keep: Annotated[
        float | None, typer.Option("--keep", min=0.01, max=1.0, help="Judge at this share instead.", show_default="the router's own")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Also the questions that it learned from.")] = False,
    plot: PlotOption = None,
    embedder: EmbedderOption = "wordllama",
    as_json: JsonOption = False,
) -> None:
    """Judge a router on a table: success against cost, beside one model, chance, and the questions' length.

    Of the table that the router was fitted to, only the questions that were held out count.

    \b
    Examples:
      foreword route eval --table later.csv --router router.safetensors --costs 1,20
      foreword route eval --table answers.jsonl --json --plot curve.svg
    """
    from foreword.gateway.routing.curve import evaluate
    from foreword.gateway.routing.fitting import Features, held_out_rows
    from foreword.gateway.routing.router import Router
    from foreword.gateway.routing.table import read_table
    from foreword.retrieval import embedder as embedders

    embed = embedders.get(embedder)
    loaded = Router.read(router, embed)
    read = read_table(table, loaded.tiers, costs=_numbers(costs))
    if not everything and read.digest == loaded.header.table:
        if not loaded.header.held_out:
            raise ConfigError(f"{router} learned from every row of {table}. Give other rows, or --all to judge it on what it knows.")
        read = read.rows(held_out_rows(read, loaded.header.held_out))
        say("This is the table that it was fitted to: only the questions that were held out count.")
    found = evaluate(loaded, read, Features.of(read, embed), keep=keep)
    if as_json:
        typer.echo(json.dumps({"path": str(router)} | _fields(found)))
    else:
        _show(found)
    _draw(found, plot)


def _numbers(costs: str | None) -> list[float] | None:
    if costs is None:
        return None
    try:
        return [float(cost) for cost in costs.split(",")]
    except ValueError:
        raise ConfigError(f"--costs takes numbers between commas, one for each tier, such as 1,20; got {costs[:60]!r}.") from None


def _draw(found: Evaluation | None, plot: Path | None) -> None:
    if plot is None:
        return
    if found is None:
        raise ConfigError("Nothing was held out, so that there is no curve to draw. Hold some questions out, or leave out --plot.")
    from foreword.gateway.routing.picture import draw

    draw(found, plot)
    say(f"Drew {plot}")


def _fields(found: Evaluation) -> dict[str, Any]:
    fields = asdict(found)
    return {
        "rows_judged": fields.pop("rows"),
        "saving": found.saving.value,
        "saving_low": found.saving.low,
        "saving_high": found.saving.high,
        "area": None if found.area is None else found.area.value,
        "area_random": found.random.area,
        "best_single": {"model": fields.pop("single"), "saving": fields.pop("single_saving")},
        "chosen": {name: fields.pop(f"chosen_{name}") for name in ("saving", "kept")} | {"asked": fields.pop("asked")},
    } | {name: value for name, value in fields.items() if name not in ("saving", "area")}


def _show(found: Evaluation) -> None:
    shown = Shown(box=None, header_style="bold", pad_edge=False)
    for column in ("model", "success", "cost", "asked"):
        shown.add_column(column, justify="left" if column == "model" else "right")
    for tier, success in found.accuracy.items():
        name = f"{tier} (most accurate)" if tier == found.reference else tier
        shown.add_row(Text(plain(name)), f"{success:.3f}", f"{found.cost[tier]:.4g}", f"{found.asked[tier]:.1%}")
    stdout().print(shown)
    peers = [("one model", found.single_saving), ("by chance", found.mixed.saving), ("by length", found.by_length.saving)]
    typer.echo(f"Spared at {found.keep:.0%} of its successes: {_percent(found.saving)}")
    typer.echo("Without a router: " + ", ".join(f"{name} {saving:.1%}" for name, saving in peers))
    if found.area is not None:
        typer.echo(f"Area under the curve: {found.area.value:.3f} ({found.area.low:.3f} to {found.area.high:.3f}); chance has 0.5")
    typer.echo(f"As fitted: {_percent(found.chosen_saving)} spared, {_percent(found.chosen_kept)} of the successes kept")
    if found.left_out:
        say(f"{found.left_out:,} rows were left out: not every model's success is known there.")


def _percent(figure: Measured) -> str:
    return f"{figure.value:.1%} ({figure.low:.1%} to {figure.high:.1%})"
