"""How times and sizes are written on the command line."""

from __future__ import annotations

import math
import re
from typing import Any

import typer

_DURATION = re.compile(r"(?:(?P<h>\d+(?:\.\d+)?)h)?(?:(?P<m>\d+(?:\.\d+)?)m)?(?:(?P<s>\d+(?:\.\d+)?)s?)?")


def duration(text: Any) -> float:
    """Seconds from `90`, `90s`, `2m`, `1.5h` or `1h30m`."""
    match = _DURATION.fullmatch(str(text).strip().lower())
    parts = {unit: float(value) for unit, value in match.groupdict().items() if value} if match else {}
    seconds = parts.get("h", 0.0) * 3600 + parts.get("m", 0.0) * 60 + parts.get("s", 0.0)
    if not parts or not math.isfinite(seconds) or seconds <= 0:
        raise typer.BadParameter(f"{text!r} is no time above zero. Write 90s, 2m, 1.5h or 1h30m.")
    return seconds


def size(count: int) -> str:
    """Bytes in decimal units."""
    return f"{count / 1e6:.1f} MB" if count >= 100_000 else f"{count / 1e3:.1f} kB"
