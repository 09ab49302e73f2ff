"""Writes a result whole or not at all, and shows it."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def write(path: Path, content: Any) -> None:
    """Writes `content` as JSON in place of what was there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    os.replace(part, path)


def show(figures: Mapping[str, Any], *, as_json: bool) -> None:
    """Prints a line for each figure, and all of them as one last line of JSON where that is wanted."""
    for key, value in figures.items():
        sys.stdout.write(f"{key}: {json.dumps(value)}\n")
    if as_json:
        sys.stdout.write(json.dumps(figures) + "\n")
