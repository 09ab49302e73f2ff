"""Text from data files as it may be shown on a terminal."""

from __future__ import annotations

WIDTH = 72


def excerpt(text: str, width: int = WIDTH) -> str:
    """The start of a text on one line, free of control characters (a file may hold terminal escapes)."""
    line = " ".join("".join(char if char.isprintable() else " " for char in text[: 4 * width]).split())
    return line if len(line) <= width else f"{line[: width - 1]}…"
