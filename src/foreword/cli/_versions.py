"""What the commands of every store of versions share: removing versions, and pointing aliases at them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from foreword.store.versions import VersionedFiles

RemovedArgument = Annotated[str, typer.Argument(metavar="REF", help="One version (support@v3), or a name together with --all.")]
AllVersionsOption = Annotated[bool, typer.Option("--all", help="Remove the name with all its versions.")]
ForceOption = Annotated[bool, typer.Option("--force", help="Also what an alias points at, and the alias.")]
AliasedArgument = Annotated[
    str, typer.Argument(metavar="REF", help="What the alias is to mean: support (the version that is latest now), ...")
]
AliasArgument = Annotated[str, typer.Argument(metavar="ALIAS", help="The alias, such as prod.")]
ForgetOption = Annotated[bool, typer.Option("--remove", help="Forget the alias instead; the version stays.")]


def remove_versions(store: VersionedFiles, ref: str, *, all_versions: bool, force: bool, as_json: bool) -> None:
    """Removes one version, or a name with all its versions, and says what is gone."""
    removed = [str(reference) for reference in store.remove(ref, all=all_versions, force=force)]
    typer.echo(json.dumps({"removed": removed}) if as_json else "Removed " + ", ".join(removed))


def point_alias(store: VersionedFiles, ref: str, alias: str, *, forget: bool, as_json: bool) -> None:
    """Points an alias at a version, or forgets it, and says so."""
    if forget:
        name = ref.partition("@")[0]
        store.unalias(name, alias)
        typer.echo(json.dumps({"forgotten": f"{name}@{alias}"}) if as_json else f"{name}@{alias} is forgotten")
        return
    target = store.resolve(ref)
    target = store.alias(target.name, alias, target.version)
    text = f"{target.name}@{alias}"
    typer.echo(json.dumps({"alias": text, "reference": str(target)}) if as_json else f"{text} is now {target}")
