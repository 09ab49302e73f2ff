"""Puts the commands together under one name, with the options that all of them share."""

from __future__ import annotations

from typing import Annotated

import typer

from foreword.cli import agent, chat, compare, compile, cost, demo, generate, models, path, personalize, prefix, prompt, route, serve, tune
from foreword.cli._console import ForewordGroup, log_to_stderr
from foreword.cli._later import DataGroup

HELP_WIDTH = 100
"""Fixed, so that help reads the same on every terminal and can be compared with what the documentation shows."""

app = typer.Typer(
    name="foreword",
    cls=ForewordGroup,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"terminal_width": HELP_WIDTH, "max_content_width": HELP_WIDTH, "help_option_names": ["-h", "--help"]},
)


def _show_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        typer.echo(f"foreword {version('foreword')}")
        raise typer.Exit


@app.callback()
def foreword(
    version: Annotated[bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and exit.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", help="Log what happens, and show where an error came from.")] = False,
) -> None:
    """Steer a frozen language model by what stands before your words.

    \b
    Examples:
      foreword demo
      foreword tune --data train.jsonl --dev dev.jsonl --name support
      foreword generate "My parcel has not arrived." --prefix support
      foreword compare --task examples/support --strategies zero-shot,few-shot:8,prefix:support
    """
    log_to_stderr(verbose=verbose)


app.command("tune")(tune.tune)
app.command("personalize")(personalize.personalize)
app.command("compile")(compile.compile_file)
app.command("generate")(generate.generate)
app.command("chat")(chat.chat)
app.command("serve")(serve.serve)
app.command("cost")(cost.cost)
app.add_typer(path.app, name="path")
app.add_typer(route.app, name="route")
app.command("compare")(compare.compare)
app.add_typer(typer.Typer(cls=DataGroup), name="data", help="Look at data before tuning on them.")
app.add_typer(prefix.app, name="prefix")
app.add_typer(prompt.app, name="prompt")
app.add_typer(agent.app, name="agent")
app.command("models")(models.models)
app.command("demo")(demo.demo)


def main() -> None:
    """Runs the command line and ends the process with its exit code."""
    app(prog_name="foreword")
