"""`foreword compile`: the exact keys and values of a text, kept as a prefix."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from foreword.cli._console import say
from foreword.cli._loading import check_prefix_name, load_model
from foreword.cli._options import DeviceOption, DtypeOption, JsonOption, ModelOption, RevisionOption, RootOption, TrustOption
from foreword.cli._sources import read_text
from foreword.cli._units import size


def compile_file(
    source: Annotated[str, typer.Argument(metavar="FILE", help="UTF-8 text; - reads standard input.")],
    name: Annotated[str, typer.Option("--name", "-o", metavar="NAME", help="Name of the prefix in the store.")],
    model: ModelOption = "smollm2",
    chat: Annotated[bool, typer.Option("--chat", help="The text is the system message; else it stands plainly before the turns.")] = False,
    dtype: DtypeOption = "auto",
    device: DeviceOption = "auto",
    revision: RevisionOption = None,
    trust_remote_code: TrustOption = False,
    root: RootOption = None,
    as_json: JsonOption = False,
) -> None:
    """Turn a text into a prefix that gives exactly the answers that the text would give.

    Nothing is learned: the model reads the text once, and its keys and values are kept. A prefix takes as many positions as the text has
    tokens, and the model answers as if the text stood there, without reading it again.

    \b
    Examples:
      foreword compile handbook.txt -o handbook
      foreword compile persona.txt -o persona --chat
      cat rules/*.md | foreword compile - -o rules
    """
    check_prefix_name(name)
    text = read_text(source)
    from foreword.compiling import compiler
    from foreword.prefix.store import PrefixStore

    engine = load_model(model, dtype=dtype, device=device, revision=revision, trust_remote_code=trust_remote_code).engine
    prefix = compiler.get("text").compile_source(engine, text, name=name, chat=chat)
    reference = PrefixStore(root).publish(prefix)
    left = engine.window - prefix.positions
    if as_json:
        found = {
            "reference": str(reference),
            "path": str(reference.path),
            "bytes": reference.path.stat().st_size,
            "positions": prefix.positions,
            "window_left": left,
        }
        typer.echo(json.dumps(found))
        return
    typer.echo(f"{reference}: {prefix.positions:,} positions, {size(reference.path.stat().st_size)}")
    say(f"{left:,} of {engine.window:,} positions are left for prompts and answers.\nTry: foreword chat --prefix {name}")
