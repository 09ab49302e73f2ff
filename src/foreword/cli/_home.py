"""Where commands keep what they make, besides prefixes and models."""

from __future__ import annotations

import os
from pathlib import Path


def home() -> Path:
    """`FOREWORD_HOME`, or `~/.foreword`."""
    return Path(os.environ.get("FOREWORD_HOME") or Path.home() / ".foreword")


def run_folder(name: str) -> Path:
    """Where the run that makes the prefix called `name` keeps its state, log and curves."""
    return home() / "runs" / name
