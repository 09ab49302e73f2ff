"""`foreword compile`: texts as a prefix, exact or in fewer positions, and several parts as one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from foreword.cli._compiling import CompileProgress, show_report
from foreword.cli._console import say, stderr
from foreword.cli._home import run_folder
from foreword.cli._loading import check_prefix_name, load_model, settings_from_options
from foreword.cli._options import DeviceOption, DtypeOption, JsonOption, ModelOption, RevisionOption, RootOption, TrustOption
from foreword.cli._sources import read_text
from foreword.cli._units import size
from foreword.errors import ConfigError

if TYPE_CHECKING:
    from foreword.cli._compilation import Compilation
    from foreword.prefix.artifact import Prefix


def compile_file(
    sources: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="FILE...",
            help="UTF-8 text; - reads standard input. Several are joined in order; each may also be a stored prefix.",
            show_default=False,
        ),
    ] = None,
    name: Annotated[str | None, typer.Option("--name", "-o", metavar="NAME", help="Name of the prefix in the store.")] = None,
    model: ModelOption = "smollm2",
    method: Annotated[
        str,
        typer.Option(
            help="text: exact. compact: fewer positions than the text has tokens. distil: the same, then trained. "
            "dictionary: entries, whole or to choose from."
        ),
    ] = "text",
    from_prompt: Annotated[
        str | None, typer.Option(metavar="PROMPT", help="Compile what no variable of a stored prompt changes, in place of a file.")
    ] = None,
    chat: Annotated[bool, typer.Option("--chat", help="The text is the system message; else it stands plainly before the turns.")] = False,
    positions: Annotated[int | None, typer.Option(min=1, help="How many positions the prefix shall have.")] = None,
    ratio: Annotated[float | None, typer.Option(min=1.0, help="How many times fewer positions than tokens.  [default: 10]")] = None,
    select: Annotated[
        str, typer.Option(help="How positions are chosen: fitted, or, for comparison, attention, kvzip, heavy-hitter, random or truncate.")
    ] = "fitted",
    questions: Annotated[int, typer.Option(min=0, help="Questions that the model asks itself about the text.")] = 32,
    tail: Annotated[
        int, typer.Option(min=0, help="Positions that may go to a tail: numbers, ids, names and quotes of the text, kept as they are.")
    ] = 0,
    steps: Annotated[int, typer.Option(min=1, help="distil: training steps.")] = 100,
    order: Annotated[str, typer.Option(help="dictionary: alphabetical or topic.")] = "alphabetical",
    separate: Annotated[
        bool, typer.Option("--separate", help="dictionary: read each entry on its own, so that `--entries` can choose among them.")
    ] = False,
    seed: Annotated[int, typer.Option(min=0, help="Of every draw.")] = 0,
    int8: Annotated[bool, typer.Option("--int8", help="Store keys and values as int8: half the size of bfloat16.")] = False,
    gate: Annotated[
        float | None,
        typer.Option(
            metavar="LEVEL", help="Store what tells which queries are its business; of its own it may miss this share, e.g. 0.05."
        ),
    ] = None,
    gate_queries: Annotated[
        Path | None, typer.Option(metavar="FILE", help="With --gate: queries of yours, one a line, rather than the model's own.")
    ] = None,
    plain: Annotated[bool, typer.Option("--plain", help="Five parts and more: without the learned header and trailer.")] = False,
    report: Annotated[
        bool, typer.Option("--report", help="Store nothing; show what the text loses at several sizes, and what each way costs.")
    ] = False,
    plot: Annotated[Path | None, typer.Option(metavar="FILE", help="With --report: also draw it, as PNG.")] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="distil: start over instead of going on after an interruption.")] = False,
    dtype: DtypeOption = "auto",
    device: DeviceOption = "auto",
    revision: RevisionOption = None,
    trust_remote_code: TrustOption = False,
    root: RootOption = None,
    as_json: JsonOption = False,
) -> None:
    """Turn a text into a prefix that stands for it.

    With the method `text` nothing is learned: the model reads the text once, its keys and values are kept, and answers are exactly
    those that the text would give. `compact` keeps fewer positions and fits them to the model's own questions about the text: cheaper
    to serve, and no longer exact. `distil` goes on from there and trains them, until the model says behind them what it says behind
    the text. `dictionary` reads entries (JSONL, TSV or lines of `word: definition`).

    Several texts or stored prefixes become one, in the order given; what contradicts or repeats itself among them is told.

    \b
    Examples:
      foreword compile handbook.txt -o handbook
      foreword compile persona.txt -o persona --chat
      foreword compile handbook.txt --report
      foreword compile handbook.txt -o handbook-small --method compact --ratio 10
      foreword compile handbook.txt -o handbook-small --method distil --positions 256
      cat rules/*.md | foreword compile - -o rules
      foreword compile house.md handbook support@prod -o desk
      foreword compile terms.tsv -o terms --method dictionary --separate
      foreword compile --from-prompt support@prod -o support-start
      foreword compile handbook.txt -o handbook --int8 --gate 0.05
    """
    from foreword.cli._compilation import Compilation, check_sources
    from foreword.compiling import compiler
    from foreword.compiling.settings import CompileSettings

    files = sources or []
    check_sources(files, from_prompt, report=report, gate=gate, gate_queries=gate_queries)
    if not report:
        name = _checked_name(name)
    elif plot is not None and not plot.parent.is_dir():
        raise ConfigError(f"There is no folder {plot.parent} to draw into; make it first.")
    settings = settings_from_options(
        CompileSettings,
        chat=chat,
        positions=positions,
        ratio=ratio,
        select=select,
        questions=questions,
        tail=tail,
        steps=steps,
        order=order,
        separate=separate,
        seed=seed,
    )
    # A report shows several methods beside each other, so it takes the settings of all of them.
    chosen = compiler.get(method) if report else compiler.check(method, settings)
    if from_prompt is not None and (method != "text" or chat):
        raise ConfigError("A stored prompt is compiled as it is, with the roles of its own messages; leave `--method` and `--chat` out.")
    text = read_text(files[0]) if len(files) == 1 else ""
    from foreword.prefix.store import PrefixStore

    engine = load_model(model, dtype=dtype, device=device, revision=revision, trust_remote_code=trust_remote_code).engine
    if report or name is None:
        show_report(engine, text, settings, plot, as_json=as_json)
        return
    # Parts are too short for work that is worth going on with.
    folder = run_folder(f"compile-{name}") if len(files) == 1 else None
    if fresh and folder is not None:
        shutil.rmtree(folder, ignore_errors=True)
    with CompileProgress(stderr()) as progress:
        compilation = Compilation(
            engine=engine, name=name, compiler=chosen, settings=settings, observer=progress, folder=folder, root=root, framed=not plain
        )
        prefix = _made(compilation, files, text, from_prompt, int8=int8, gate=gate, gate_queries=gate_queries)
    reference = PrefixStore(root).publish(prefix)
    left = engine.window - prefix.positions
    if as_json:
        found = {
            "reference": str(reference),
            "path": str(reference.path),
            "bytes": reference.path.stat().st_size,
            "positions": prefix.positions,
            "tokens": prefix.header.recipe.get("tokens", prefix.positions),
            "window_left": left,
        }
        typer.echo(json.dumps(found))
        return
    tokens = prefix.header.recipe.get("tokens", prefix.positions)
    fewer = f" for {tokens:,} tokens" if tokens != prefix.positions else ""
    typer.echo(f"{reference}: {prefix.positions:,} positions{fewer}, {size(reference.path.stat().st_size)}")
    say(f"{left:,} of {engine.window:,} positions are left for prompts and answers.\nTry: foreword chat --prefix {name}")


def _made(
    compilation: Compilation,
    files: list[str],
    text: str,
    from_prompt: str | None,
    *,
    int8: bool,
    gate: float | None,
    gate_queries: Path | None,
) -> Prefix:
    from foreword.cli._compilation import gated
    from foreword.prefix.operations import quantize

    if from_prompt is not None:
        prefix, text = compilation.of_prompt(from_prompt)
    elif len(files) > 1:
        prefix = compilation.of_parts(files)
    else:
        prefix = compilation.of_text(text)
    if int8:
        prefix = quantize(prefix)
    return prefix if gate is None else gated(prefix, text, compilation, level=gate, queries=gate_queries)


def _checked_name(name: str | None) -> str:
    if name is None:
        raise ConfigError("Name the prefix: `-o NAME`. (`--report` needs no name.)")
    check_prefix_name(name)
    return name
