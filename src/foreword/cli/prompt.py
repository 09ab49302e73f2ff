"""`foreword prompt`: prompt templates in their store."""

from __future__ import annotations

import difflib
import json
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from foreword.cli._console import plain, say, stdout
from foreword.cli._options import JsonOption, ModelOption
from foreword.cli._prompt_compress import audit, compress
from foreword.cli._prompt_fit import fit
from foreword.cli._prompt_optimise import optimise
from foreword.cli._prompts import PromptsOption, prompt_store, read_prompt
from foreword.cli._versions import (
    AliasArgument,
    AliasedArgument,
    AllVersionsOption,
    ForceOption,
    ForgetOption,
    RemovedArgument,
    point_alias,
    remove_versions,
)
from foreword.errors import ConfigError, ForewordError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from foreword.prompting.store import PromptStore
    from foreword.prompting.template import Template
    from foreword.store.versions import Listing
    from foreword.types import Message

app = typer.Typer(no_args_is_help=True)

TokensOption = Annotated[bool, typer.Option("--tokens", help="Also count its tokens, as the model's chat template writes them.")]
RefArgument = Annotated[str, typer.Argument(metavar="REF", help="support (latest), support@prod or support@v3.")]


@app.callback()
def prompt() -> None:
    """Keep prompts in versions, and make them better: rank, optimise, audit and compress them.

    A prompt file is TOML with messages, variables and examples, or a plain text, which becomes the system message. A reference reads
    `support` (latest version), `support@prod` (alias) or `support@v3` (version).
    """


@app.command("add")
def add(
    file: Annotated[str, typer.Argument(metavar="FILE", help="A .toml file, or a plain text; - reads a plain text from standard input.")],
    name: Annotated[str | None, typer.Option("--name", help="Name of the prompt.", show_default="as the file says, or is called")] = None,
    root: PromptsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Add a prompt to the store, as the next version of its name.

    \b
    A TOML file reads
      [[messages]]
      role = "system"
      content = "Answer in one sentence."
      [[messages]]
      role = "user"
      content = "A customer of {{ shop }} asks: {{ question }}"
      [[examples]]
      user = "Where is my parcel?"
      assistant = "It has left our house."
      [variables]
      shop = "Larkspur"

    Variables without a value there have to be given each time. Examples stand before the user's last message.

    \b
    Examples:
      foreword prompt add support.toml
      foreword prompt add rules.md --name rules
    """
    template = read_prompt(file, name)
    reference = prompt_store(root).publish(template)
    if as_json:
        typer.echo(json.dumps({"reference": str(reference), "path": str(reference.path), **_facts(template)}))
    else:
        typer.echo(f"{reference}: {_described(template)}")


@app.command("ls")
def ls(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="One name, with all its versions.", show_default=False)] = None,
    root: PromptsOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the prompts in the store with their latest version, or all versions of one.

    \b
    Examples:
      foreword prompt ls
      foreword prompt ls support --json
    """
    store = prompt_store(root)
    if name is not None:
        store.resolve(name)
    listings = [listing for listing in store.list() if name is None or listing.name == name.partition("@")[0]]
    rows = [_row(store, listing, version) for listing in listings for version in (listing.versions if name else (listing.latest,))]
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
    elif not rows:
        say(f"No prompts in {store.root} yet. Add one: foreword prompt add FILE")
    else:
        stdout().print(_table(rows))


@app.command("show")
def show(
    ref: RefArgument, tokens: TokensOption = False, model: ModelOption = "smollm2", root: PromptsOption = None, as_json: JsonOption = False
) -> None:
    """Show a prompt as it is stored: messages, examples, variables, and what of it is fixed.

    With --tokens, also how many tokens its fixed part has. A version that a program made brings what was measured: --json has it.

    \b
    Examples:
      foreword prompt show support@prod
      foreword prompt show support --tokens --model smollm2
      foreword prompt show support --json
    """
    store = prompt_store(root)
    reference = store.resolve(ref)
    template = store.load(reference)
    counted = _tokens(template.fixed() if _fixed(template) else (), model) if tokens else None
    if as_json:
        fields = {"reference": str(reference), "path": str(reference.path), **_facts(template), "prompt": template.model_dump(mode="json")}
        typer.echo(json.dumps(fields | ({} if counted is None else {"fixed_tokens": counted}), indent=2))
        return
    typer.echo(plain("\n".join(_lines(template))))
    made_by = "" if template.evidence is None else f", made by {template.evidence.get('made_by', 'a program')}"
    say(f"{reference}: {_described(template)}{'' if counted is None else f', {counted:,} tokens of it fixed'}{plain(made_by)}")


@app.command("rm")
def rm(
    ref: RemovedArgument,
    all_versions: AllVersionsOption = False,
    force: ForceOption = False,
    root: PromptsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Remove one version, or a prompt with all its versions. Prefixes that were compiled from it stay.

    \b
    Examples:
      foreword prompt rm support@v1
      foreword prompt rm support --all
    """
    remove_versions(prompt_store(root), ref, all_versions=all_versions, force=force, as_json=as_json)


@app.command("alias")
def alias(
    ref: AliasedArgument,
    alias_name: AliasArgument,
    remove: ForgetOption = False,
    root: PromptsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Point an alias at a version, so that `support@prod` means it.

    \b
    Examples:
      foreword prompt alias support@v3 prod
      foreword prompt alias support prod --remove
    """
    point_alias(prompt_store(root), ref, alias_name, forget=remove, as_json=as_json)


@app.command("render")
def render(
    ref: RefArgument,
    values: Annotated[list[str] | None, typer.Argument(metavar="[NAME=TEXT]...", help="Values of variables.", show_default=False)] = None,
    tokens: TokensOption = False,
    model: ModelOption = "smollm2",
    root: PromptsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Print the conversation that a prompt makes of its variables' values. With --json, as `messages` of a chat request.

    \b
    Examples:
      foreword prompt render support "question=Where is my parcel?"
      foreword prompt render support@prod shop=Larkspur question=Why? --json
      foreword prompt render support question=Why? --tokens
    """
    messages = prompt_store(root).load(ref).render(_values(values or []))
    if as_json:
        typer.echo(json.dumps([{"role": message.role, "content": message.content} for message in messages], ensure_ascii=False))
    else:
        typer.echo(plain("\n".join(_headed(messages))))
    if tokens:
        say(f"{_tokens(messages, model):,} tokens for {model}, its chat template's own included")


@app.command("diff")
def diff(
    first: Annotated[str, typer.Argument(metavar="A", help="What to compare: support@v1, ...")],
    second: Annotated[str, typer.Argument(metavar="B", help="With what: support@prod, ...")],
    root: PromptsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what differs between two prompts, or two versions of one, line by line.

    \b
    Examples:
      foreword prompt diff support@v1 support
      foreword prompt diff support@prod rules
    """
    store = prompt_store(root)
    references = [store.resolve(ref) for ref in (first, second)]
    before, after = (_lines(store.load(reference)) for reference in references)
    lines = list(difflib.unified_diff(before, after, str(references[0]), str(references[1]), lineterm=""))
    if as_json:
        typer.echo(json.dumps({"from": str(references[0]), "to": str(references[1]), "lines": lines}, ensure_ascii=False))
    elif lines:
        typer.echo(plain("\n".join(lines)))
    else:
        say(f"{references[0]} and {references[1]} are the same.")


app.command("fit")(fit)
app.command("optimise")(optimise)
app.command("audit")(audit)
app.command("compress")(compress)


def _tokens(messages: Sequence[Message], model: str) -> int:
    """Tokens of a conversation, or of its beginning where its last turn is not the user's, as the model is given them."""
    from foreword.cli._loading import load_model

    if not messages:
        return 0
    engine = load_model(model).engine
    return len(engine.render(messages) if messages[-1].role == "user" else engine.render_context(messages))


def _values(words: list[str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for word in words:
        name, equals, text = word.partition("=")
        if not equals or not name:
            raise ConfigError(f"`{word}` gives no variable a value. Write `NAME=TEXT`, with quotation marks where the text has blanks.")
        if name in values:
            raise ConfigError(f"`{name}` has two values. Give it one.")
        values[name] = text
    return values


def _facts(template: Template) -> dict[str, Any]:
    return {
        "messages": len(template.messages),
        "examples": len(template.examples),
        "required": list(template.required),
        "defaults": dict(template.variables),
        "fixed": _fixed(template),
    }


def _fixed(template: Template) -> int:
    """How many messages no variable changes, at the beginning."""
    try:
        return len(template.fixed())
    except ForewordError:
        return 0


def _described(template: Template) -> str:
    parts = [_count(len(template.messages), "message")]
    if template.examples:
        parts.append(_count(len(template.examples), "example"))
    if template.used:
        given = [name if name in template.required else f"{name} ({_shown(template.variables[name])})" for name in template.used]
        parts.append(f"variables {', '.join(given)}")
    fixed = _fixed(template)
    parts.append(f"fixed: the first {'message' if fixed == 1 else f'{fixed} messages'}" if fixed else "nothing fixed")
    return plain(", ".join(parts))


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _shown(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _lines(template: Template) -> list[str]:
    """A prompt as lines of text: what `show` prints and `diff` compares."""
    lines = [line for turn in template.messages for line in (f"[{turn.role}]", *turn.content.split("\n"), "")]
    for shot in template.examples:
        lines += ["[example: user]", *shot.user.split("\n"), "[example: assistant]", *shot.assistant.split("\n"), ""]
    if template.variables:
        lines += ["[variables]", *(f"{name} = {_shown(value)}" for name, value in sorted(template.variables.items())), ""]
    return lines[:-1]


def _headed(messages: Sequence[Message]) -> list[str]:
    return [line for message in messages for line in (f"[{message.role}]", message.content, "")][:-1]


def _row(store: PromptStore, listing: Listing, version: int) -> dict[str, Any]:
    reference = store.resolve(f"{listing.name}@v{version}")
    aliases = sorted(alias for alias, target in listing.aliases.items() if target == version)
    row: dict[str, Any] = {"reference": str(reference), "aliases": aliases, "versions": len(listing.versions), "path": str(reference.path)}
    try:
        return row | _facts(store.load(reference))
    except ForewordError as error:
        return row | {"damage": str(error)}


def _table(rows: list[dict[str, Any]]) -> Table:
    table = Table(title="Prompts", title_justify="left")
    for title in ("reference", "aliases", "versions", "messages", "examples", "fixed", "variables"):
        table.add_column(title, justify="right" if title in ("versions", "messages", "examples", "fixed") else "left", overflow="fold")
    for row in rows:
        start = (row["reference"], ", ".join(row["aliases"]), str(row["versions"]))
        if "damage" in row:
            table.add_row(*start, Text("damaged", style="bold red"), "", "", "")
            continue
        names = sorted([*row["required"], *(f"{name} = {_shown(value)}" for name, value in row["defaults"].items())])
        table.add_row(*start, str(row["messages"]), str(row["examples"]), str(row["fixed"]), Text(plain(", ".join(names))))
    return table
