"""`foreword prefix`: what the store holds, and what can be done with it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from foreword.cli._console import plain, say, stdout
from foreword.cli._loading import load_prefix, prefix_file
from foreword.cli._options import DeviceOption, DtypeOption, JsonOption, ModelOption, RevisionOption, RootOption, TrustOption
from foreword.cli._units import size
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
from foreword.errors import ConfigError, PrefixError, PrefixFileError

if TYPE_CHECKING:
    from foreword.prefix.header import PrefixHeader
    from foreword.prefix.store import Listing, PrefixStore, Reference

app = typer.Typer(no_args_is_help=True)

RefArgument = Annotated[str, typer.Argument(metavar="REF", help="support (latest), support@prod, support@v3, or a .safetensors file.")]


@app.callback()
def prefix() -> None:
    """List, show, verify, remove, alias, compose and quantise stored prefixes.

    A reference reads `support` (latest version), `support@prod` (alias), `support@v3` (version), or is the path of a .safetensors file.
    """


@app.command("ls")
def ls(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="One name, with all its versions.", show_default=False)] = None,
    root: RootOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the names in the store with their latest version, or all versions of one name.

    \b
    Examples:
      foreword prefix ls
      foreword prefix ls support --json
    """
    store = _store(root)
    if name is not None:
        store.resolve(name)
    listings = [listing for listing in store.list() if name is None or listing.name == name.partition("@")[0]]
    rows = [_row(store, listing, version) for listing in listings for version in (listing.versions if name else (listing.latest,))]
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
    elif not rows:
        say(f"No prefixes in {store.root} yet. Make one: foreword tune --data FILE --name NAME, or foreword compile FILE -o NAME")
    else:
        stdout().print(_listing_table(rows))


@app.command("show")
def show(ref: RefArgument, root: RootOption = None, as_json: JsonOption = False) -> None:
    """Show what a prefix says about itself: model, shape, recipe, quality, licence.

    \b
    Examples:
      foreword prefix show support@prod
      foreword prefix show support.safetensors --json
    """
    from foreword.prefix.header import read_header

    path = prefix_file(ref, root)
    header = read_header(path)
    if as_json:
        fields = {"path": str(path), "bytes": path.stat().st_size, **header.model_dump(mode="json")}
        typer.echo(json.dumps(fields, indent=2))
        return
    table = Table(title=plain(header.name), title_justify="left", show_header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for title, value in _fields(header, path):
        table.add_row(title, Text(plain(value)))
    stdout().print(table)


@app.command("verify")
def verify(
    refs: Annotated[list[str] | None, typer.Argument(metavar="[REF]...", help="What to verify; all of the store when absent.")] = None,
    root: RootOption = None,
    as_json: JsonOption = False,
) -> None:
    """Read every byte of prefix files and compare it with their checksums. Exits with 1 when a file is damaged.

    \b
    Examples:
      foreword prefix verify
      foreword prefix verify support@v3 other.safetensors
    """
    from foreword.prefix.operations import verify as verify_file

    found = [{"reference": ref, "path": str(prefix_file(ref, root))} for ref in refs or _everything(_store(root))]
    for entry in found:
        try:
            verify_file(entry["path"])
        except PrefixFileError as error:
            entry["damage"] = str(error)
    if as_json:
        typer.echo(json.dumps(found, indent=2))
    else:
        for entry in found:
            typer.echo(f"{entry['reference']}: " + (plain(entry["damage"]) if "damage" in entry else "sound"))
        if not found:
            say("There is nothing to verify.")
    if any("damage" in entry for entry in found):
        raise typer.Exit(1)


@app.command("rm")
def rm(
    ref: RemovedArgument,
    all_versions: AllVersionsOption = False,
    force: ForceOption = False,
    root: RootOption = None,
    as_json: JsonOption = False,
) -> None:
    """Remove one version, or a name with all its versions.

    \b
    Examples:
      foreword prefix rm support@v1
      foreword prefix rm support --all
    """
    remove_versions(_store(root), ref, all_versions=all_versions, force=force, as_json=as_json)


@app.command("alias")
def alias(
    ref: AliasedArgument,
    alias_name: AliasArgument,
    remove: ForgetOption = False,
    root: RootOption = None,
    as_json: JsonOption = False,
) -> None:
    """Point an alias at a version, so that `support@prod` means it.

    \b
    Examples:
      foreword prefix alias support@v3 prod
      foreword prefix alias support prod --remove
    """
    point_alias(_store(root), ref, alias_name, forget=remove, as_json=as_json)


@app.command("compose")
def compose(
    refs: Annotated[list[str], typer.Argument(metavar="REF...", help="The parts, in order.")],
    name: Annotated[str | None, typer.Option("--name", "-o", metavar="NAME", help="Name of the result.", show_default="A+B")] = None,
    window: Annotated[int | None, typer.Option("--window", min=1, help="The model's window in positions, to check that it fits.")] = None,
    root: RootOption = None,
    as_json: JsonOption = False,
) -> None:
    """Join prefixes of one model into one, in the order given. The parts do not see each other, as they did not when they were made.

    \b
    Examples:
      foreword prefix compose house-style support -o house+support
    """
    if len(refs) < 2:
        raise ConfigError(f"A composition has at least two parts; got {refs[0]}. Name the others too.")
    from foreword.prefix.operations import compose as join

    parts = [load_prefix(ref, root) for ref in refs]
    reference = _store(root).publish(join(parts, name or "+".join(part.name for part in parts), window=window))
    header = _store(root).header(reference)
    if as_json:
        typer.echo(json.dumps({"reference": str(reference), "path": str(reference.path), "positions": header.positions}))
    else:
        typer.echo(f"{reference}: {header.positions:,} positions, {_size(reference.path)}")


@app.command("quantize")
def quantize(
    ref: RefArgument,
    name: Annotated[str | None, typer.Option("--name", "-o", metavar="NAME", help="Name of the result.", show_default="its own")] = None,
    root: RootOption = None,
    as_json: JsonOption = False,
) -> None:
    """Publish a prefix with its keys and values as int8, with a scale for each head and position: half the size of bfloat16.

    \b
    Examples:
      foreword prefix quantize support
      foreword prefix quantize support@prod -o support-int8
    """
    from foreword.prefix.operations import quantize as rounded

    found = load_prefix(ref, root)
    small = rounded(found)
    reference = _store(root).publish(small if name is None else small.rename(name))
    if as_json:
        typer.echo(
            json.dumps({"reference": str(reference), "path": str(reference.path), "bytes": small.nbytes, "bytes_before": found.nbytes})
        )
    else:
        typer.echo(f"{reference}: {_size(reference.path)}")


@app.command("learn-frame")
def learn_frame(
    files: Annotated[list[str], typer.Argument(metavar="FILE...", help="UTF-8 texts of the kind and length that will be composed.")],
    model: ModelOption = "smollm2",
    steps: Annotated[int | None, typer.Option(min=1, help="Training steps.", show_default="as measured best")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of every draw.")] = 0,
    fresh: Annotated[bool, typer.Option("--fresh", help="Start over instead of going on after an interruption.")] = False,
    dtype: DtypeOption = "auto",
    device: DeviceOption = "auto",
    revision: RevisionOption = None,
    trust_remote_code: TrustOption = False,
    root: RootOption = None,
    as_json: JsonOption = False,
) -> None:
    """Learn, once for a model, a header and a trailer that let many parts stand side by side; `foreword compile` puts them around five
    parts and more.

    \b
    Examples:
      foreword prefix learn-frame texts/*.md
      foreword compile house.md handbook -o desk
    """
    import shutil

    from foreword.cli._compiling import CompileProgress
    from foreword.cli._console import stderr
    from foreword.cli._home import run_folder
    from foreword.cli._loading import load_model, settings_from_options
    from foreword.cli._sources import read_text
    from foreword.compiling.composing import reserved_name
    from foreword.compiling.neighbours import NeighbourSettings, learn_header_trailer

    texts = [read_text(file) for file in files]
    chosen = {"seed": seed} if steps is None else {"seed": seed, "steps": steps}
    settings = settings_from_options(NeighbourSettings, **chosen)
    engine = load_model(model, dtype=dtype, device=device, revision=revision, trust_remote_code=trust_remote_code).engine
    folder = run_folder(reserved_name(engine.fingerprint))
    if fresh:
        shutil.rmtree(folder, ignore_errors=True)
    with CompileProgress(stderr()) as progress:
        learned = learn_header_trailer(engine, texts, settings=settings, observer=progress, folder=folder)
    reference = _store(root).publish(learned)
    if as_json:
        typer.echo(json.dumps({"reference": str(reference), "path": str(reference.path), "quality": learned.header.quality}))
        return
    quality = learned.header.quality
    typer.echo(f"{reference}: {learned.positions} positions, {_size(reference.path)}")
    typer.echo(f"Nats per token from the joined texts: {quality['nats']:.3f} with it, {quality['nats_plain']:.3f} without.")


def _store(root: Path | None) -> PrefixStore:
    from foreword.prefix.store import PrefixStore

    return PrefixStore(root)


def _everything(store: PrefixStore) -> list[str]:
    return [f"{listing.name}@v{version}" for listing in store.list() for version in listing.versions]


def _row(store: PrefixStore, listing: Listing, version: int) -> dict[str, Any]:
    reference = store.resolve(f"{listing.name}@v{version}")
    aliases = sorted(alias for alias, target in listing.aliases.items() if target == version)
    row: dict[str, Any] = {"reference": str(reference), "aliases": aliases, "versions": len(listing.versions)}
    try:
        return row | _described(store.header(reference), reference)
    except PrefixError as error:
        return row | {"path": str(reference.path), "damage": str(error)}


def _described(header: PrefixHeader, reference: Reference) -> dict[str, Any]:
    return {
        "kind": header.kind,
        "positions": header.positions,
        "dtype": header.dtype,
        "bytes": reference.path.stat().st_size,
        "model": f"{header.fingerprint.architecture} {header.fingerprint.weights[:8]}",
        "licence": header.licence,
        "created": header.created.isoformat(timespec="seconds"),
        "path": str(reference.path),
    }


def _listing_table(rows: list[dict[str, Any]]) -> Table:
    table = Table(title="Prefixes", title_justify="left")
    for title in ("reference", "aliases", "versions", "kind", "positions", "size", "model", "created"):
        table.add_column(title, justify="right" if title in ("versions", "positions", "size") else "left", overflow="fold")
    for row in rows:
        start = (row["reference"], ", ".join(row["aliases"]), str(row["versions"]))
        if "damage" in row:
            table.add_row(*start, Text("damaged", style="bold red"), "", "", "", "")
            continue
        created = row["created"][:16].replace("T", " ")
        table.add_row(*start, row["kind"], f"{row['positions']:,}", size(row["bytes"]), Text(plain(row["model"])), created)
    return table


def _fields(header: PrefixHeader, path: Path) -> list[tuple[str, str]]:
    """Header fields as they are read by people, those that say something."""
    geometry, fingerprint = header.geometry, header.fingerprint
    fields = [
        ("kind", header.kind),
        ("positions", f"{header.positions:,}, the first at {header.first_position}, {header.sink} kept as sink"),
        ("numbers", f"{header.dtype}; {geometry.layers} layers, {geometry.kv_heads} KV heads, {geometry.head_dim} dimensions"),
        ("prompt format", header.prompt_format),
        ("model", fingerprint.architecture),
        *((f"  {part}", getattr(fingerprint, part)) for part in ("config", "weights", "tokenizer", "chat_template")),
        ("instruction", header.instruction or ""),
        ("text tail", header.text_tail or ""),
        ("quality", ", ".join(f"{name} {value:.4g}" for name, value in header.quality.items())),
        ("recipe", json.dumps(header.recipe, ensure_ascii=False) if header.recipe else ""),
        ("seed", "" if header.seed is None else str(header.seed)),
        ("training data", header.training_data or ""),
        ("parents", ", ".join(header.parents)),
        ("licence", header.licence or "not stated"),
        ("created", f"{header.created:%Y-%m-%d %H:%M:%S} UTC"),
        ("digest", header.digest),
        ("file", f"{os.fspath(path)}, {_size(path)}"),
    ]
    return [(title, value) for title, value in fields if value]


def _size(path: Path) -> str:
    return size(path.stat().st_size)
