"""`foreword models`: which names work here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import typer
from rich.table import Table

from foreword.cli._console import say, stdout
from foreword.cli._options import JsonOption
from foreword.errors import ModelError

PROVED = ("Llama (and SmolLM2)", "Qwen3", "Gemma 3", "GPT-2", "GPT-NeoX")
"""Families whose prefixes and answers the tests compare with the model's own."""


def models(as_json: JsonOption = False) -> None:
    """Show which models work here without a download, and where they lie.

    Besides those listed, any Hugging Face id (org/model) works where there is a network, and any folder with config.json, *.safetensors
    and a tokenizer.

    \b
    Examples:
      foreword models
      foreword models --json
    """
    found = [_smollm2_row(), *_hub_rows()]
    if as_json:
        typer.echo(json.dumps({"models": found, "proved_families": list(PROVED)}, indent=2))
        return
    table = Table(title="Models", title_justify="left")
    for title in ("name", "state", "size", "weights", "where"):
        table.add_column(title, justify="right" if title == "size" else "left", overflow="fold")
    for row in found:
        size = "" if row["bytes"] is None else f"{row['bytes'] / 1e6:,.0f} MB"
        table.add_row(row["name"], row["state"], size, (row["weights"] or "")[:12], row["where"] or "")
    stdout().print(table)
    say(f"Families proved by the tests: {', '.join(PROVED)}. Also: any Hugging Face id, any folder with safetensors.")


def _smollm2_row() -> dict[str, Any]:
    from foreword.engines import _checkpoint, _smollm2

    row: dict[str, Any] = {"name": "smollm2", "state": "not installed", "bytes": None, "weights": None, "where": None}
    try:
        source = _smollm2.gguf_file()
    except ModelError as error:
        return row | {"mend": str(error)}
    cache = _checkpoint.home() / "models"
    converted = sorted(folder for folder in cache.glob("smollm2-*") if (folder / _smollm2.MARKER).is_file())
    if not converted:
        return row | {"state": "installed; converted when first used", "bytes": source.stat().st_size, "where": str(source)}
    folder = converted[-1]
    weights = _checkpoint.weights_sha256(folder)
    return row | {"state": "ready", "bytes": _folder_bytes(folder), "weights": weights, "where": str(folder)}


def _hub_rows() -> list[dict[str, Any]]:
    """Models with safetensors that lie in the Hugging Face cache already."""
    from huggingface_hub import scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    try:
        repositories = scan_cache_dir().repos
    except CacheNotFound:
        return []
    rows = []
    for repository in sorted(repositories, key=lambda found: found.repo_id):
        names = {file.file_name for revision in repository.revisions for file in revision.files}
        if repository.repo_type == "model" and "config.json" in names and any(name.endswith(".safetensors") for name in names):
            place = str(repository.repo_path)
            rows.append(
                {"name": repository.repo_id, "state": "downloaded", "bytes": repository.size_on_disk, "weights": None, "where": place}
            )
    return rows


def _folder_bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.iterdir() if file.is_file())
