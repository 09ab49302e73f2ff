"""`foreword path`: the path that requests take through a server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlsplit, urlunsplit

import typer

from foreword.cli._options import JsonOption
from foreword.cli._path_audit import audit
from foreword.cli._path_intake import train_intake

if TYPE_CHECKING:
    from foreword.gateway.path_settings import ModelSettings

app = typer.Typer(no_args_is_help=True)
app.command("train-intake")(train_intake)
app.command("audit")(audit)


@app.callback()
def path() -> None:
    """Look at the path that requests take through `foreword serve --config`, and at what it does with them."""


@app.command("show")
def show(
    config: Annotated[Path, typer.Argument(metavar="FILE", help="A foreword.toml.")] = Path("foreword.toml"),
    as_json: JsonOption = False,
) -> None:
    """Print the stages in their order, with what each does, the models and the task types.

    \b
    Examples:
      foreword path show
      foreword path show shop.toml --json
    """
    from foreword import registry
    from foreword.gateway import stage
    from foreword.gateway.path_settings import DEFAULT_TASK, read_settings

    settings = read_settings(config)
    stages = {name: _said(registry.find(stage.FOLDER, name).__doc__ or "") for name in settings.stages}
    models = {name: settings.model(name) for name in settings.models}
    tasks = {name: settings.task(name) for name in dict.fromkeys((*settings.tasks, DEFAULT_TASK))}
    if as_json:
        told = {
            "stages": stages,
            "models": {name: {"model": model.model, "place": _place(model)} for name, model in models.items()},
            "tasks": {name: {"tiers": list(task.tiers)} for name, task in tasks.items()},
        }
        typer.echo(json.dumps(told, indent=2))
        return
    width = max(len(name) for name in stages)
    typer.echo("\n  |\n".join(f"  {name:<{width}}  {said}" for name, said in stages.items()))
    typer.echo("\nModels:")
    for name, model in models.items():
        typer.echo(f"  {name}: {model.model} ({_place(model)})")
    typer.echo("\nTask types, and the models they try:")
    for name, task in tasks.items():
        typer.echo(f"  {name}: {', '.join(task.tiers)}")


def _place(model: ModelSettings) -> str:
    """Where a model is; a URL without a password that may be in it."""
    if model.engine is not None:
        return f"engine {model.engine}, in this process"
    parts = urlsplit(str(model.url))
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def _said(docstring: str) -> str:
    """The first sentence, without the stage's name."""
    first = " ".join(docstring.split("\n\n")[0].split())
    return first.partition(": ")[2] or first
