"""Prefixes held ready in memory: read once, shared by every request that uses them, the ones used longest ago let go first.

Axes: L layer, G KV head, N virtual position, D head dim.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from foreword.errors import PrefixFileError
from foreword.prefix.header import PromptFormat

Paths = tuple[Path, ...]
_Key = tuple[tuple[Path, int, int, int], ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PrefixTensors:
    """A prefix in the engine's dtype and on its device; two are the same only if they are the same object."""

    key_LGND: Tensor | None
    value_LGND: Tensor | None
    positions: int
    prompt_format: PromptFormat

    @property
    def size(self) -> int:
        """Bytes."""
        return sum(tensor.nbytes for tensor in (self.key_LGND, self.value_LGND) if tensor is not None)


NO_PREFIX = PrefixTensors(key_LGND=None, value_LGND=None, positions=0, prompt_format="full")


@dataclass(frozen=True, slots=True, kw_only=True)
class Residence:
    """How many prefixes are in memory, what they take, and how often a request found its own there."""

    prefixes: int
    size: int
    hits: int
    misses: int


class ResidentPrefixes:
    """A bounded cache over prefix files. Safe to use from several threads.

    A file is known by its path, inode, time and size, so one that was replaced is read again, while requests that hold the old tensors
    keep them. Tensors are copies, not views of the file: cutting a file short cannot reach them.
    """

    def __init__(self, read: Callable[[Paths], PrefixTensors], *, most_bytes: int) -> None:
        """Args: most_bytes: bound on what is held, pinned prefixes and those in use by requests apart."""
        self._read, self._most = read, most_bytes
        self._held: OrderedDict[_Key, PrefixTensors] = OrderedDict()
        self._pinned: set[_Key] = set()
        self._size = self._hits = self._misses = 0
        self._lock = threading.Lock()

    def get(self, paths: Paths, *, pinned: bool = False) -> PrefixTensors:
        """The prefix of these files, composed where there are several.

        Raises:
            PrefixFileError: a file is missing or not sound.
            PrefixMismatch: it was made for another model.
        """
        if not paths:
            return NO_PREFIX
        key = tuple(_identity(path) for path in paths)
        with self._lock:
            found = self._held.get(key)
            if found is not None:
                self._hits += 1
                self._held.move_to_end(key)
                if pinned:
                    self._pinned.add(key)
                return found
            self._misses += 1
        # Read without the lock: others must not wait for a disk. Two that read the same file at once both get sound tensors.
        made = self._read(paths)
        with self._lock:
            if key not in self._held:
                self._held[key] = made
                self._size += made.size
            if pinned:
                self._pinned.add(key)
            self._make_room(newest=key)
            return self._held.get(key, made)

    def let_go(self, paths: Paths) -> None:
        """Forgets every state of these files."""
        with self._lock:
            for key in [key for key in self._held if tuple(path for path, *_ in key) == paths]:
                self._drop(key)

    def paths(self) -> tuple[Paths, ...]:
        """What is held, the one used last first."""
        with self._lock:
            return tuple(tuple(path for path, *_ in key) for key in reversed(self._held))

    def residence(self) -> Residence:
        """Counts."""
        with self._lock:
            return Residence(prefixes=len(self._held), size=self._size, hits=self._hits, misses=self._misses)

    def _make_room(self, *, newest: _Key) -> None:
        for key in list(self._held):
            if self._size <= self._most:
                return
            if key not in self._pinned and key != newest:
                self._drop(key)
        # One that is larger than the bound serves its request and is not kept.
        if self._size > self._most and newest not in self._pinned:
            self._drop(newest)

    def _drop(self, key: _Key) -> None:
        self._size -= self._held.pop(key).size
        self._pinned.discard(key)


def _identity(path: Path) -> tuple[Path, int, int, int]:
    try:
        found = path.stat()
    except OSError as error:
        raise PrefixFileError(f"The prefix file `{path.name}` cannot be read: {error.strerror}. Publish it again.") from error
    return path, found.st_ino, found.st_mtime_ns, found.st_size
