"""What tells, at the cost of one `stat`, whether a file or folder is still what it was."""

from __future__ import annotations

import os

State = tuple[int, int, int]
"""When it was changed last (nanoseconds), which one it is, and its size."""


def state_of(path: str | os.PathLike[str]) -> State | None:
    """The state of a file or folder now; None where there is none."""
    try:
        stat = os.stat(path)
    except (OSError, ValueError):
        return None
    return stat.st_mtime_ns, stat.st_ino, stat.st_size
