"""What has been paid for, line by line in a file, so that work which is interrupted goes on without paying twice.

The file is JSON lines: the first says what work it belongs to, each other one holds an entry. Every line is on the disk before what it
tells is used; a last line that was cut off is left out.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from foreword.errors import ConfigError

FORMAT = 1


class Journal:
    """Entries by key: JSON objects, in a file where one is named, else in memory alone."""

    def __init__(self, path: Path | None, *, work: Mapping[str, Any]) -> None:
        """Reads what is there.

        Args:
            path: a file; or, without an ending, a folder in which each work has a file of its own.
            work: what the entries are true of: settings, data, model. A file of other work is not touched.

        Raises:
            ConfigError: the file is that of other work, or no journal.
        """
        self._path = path
        self._entries: dict[str, dict[str, Any]] = {}
        if path is None:
            return
        head = json.dumps({"format": FORMAT, "work": work}, sort_keys=True)
        if not path.suffix:
            path = self._path = path / f"{hashlib.sha256(head.encode()).hexdigest()[:16]}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = _whole_lines(path) if path.exists() else []
        if not lines:
            _replace(path, f"{head}\n")
            return
        if lines[0] != head:
            raise ConfigError(
                f"{path} belongs to other work: settings, data or model differ. Start over (`--fresh`), or name another file."
            )
        for line in lines[1:]:
            try:
                entry = json.loads(line)
                self._entries[entry["key"]] = entry["value"]
            except (ValueError, TypeError, KeyError):
                raise ConfigError(f"{path} is damaged: a line in it is no entry. Start over (`--fresh`), or name another file.") from None
        # What was cut off must not stand in the middle once more is written.
        _replace(path, "".join(f"{line}\n" for line in lines))

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: str) -> dict[str, Any] | None:
        """The entry called `key`, or None."""
        return self._entries.get(key)

    def put(self, entries: Mapping[str, Mapping[str, Any]]) -> None:
        """Adds entries; they are on the disk when this returns."""
        self._entries.update({key: dict(value) for key, value in entries.items()})
        if self._path is None or not entries:
            return
        with self._path.open("a", encoding="utf-8") as file:
            file.write("".join(f"{json.dumps({'key': key, 'value': value})}\n" for key, value in entries.items()))
            file.flush()
            os.fsync(file.fileno())


def _whole_lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8", errors="replace").split("\n")[:-1]


def _replace(path: Path, content: str) -> None:
    part = path.with_name(f"{path.name}.part")
    with part.open("w", encoding="utf-8") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, path)
