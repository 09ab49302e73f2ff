"""Where prefixes are kept: names with versions and aliases, as `foreword.store.versions` describes them. Reaches no torch until it must."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from foreword.prefix.header import PrefixHeader, check_name, read_header
from foreword.store import versions
from foreword.store.versions import LATEST, Listing, Reference

if TYPE_CHECKING:
    from foreword.prefix.artifact import Prefix

__all__ = ["LATEST", "Listing", "PrefixStore", "Reference", "default_root"]


def default_root() -> Path:
    """The folder `prefixes` in `FOREWORD_HOME`, or in `~/.foreword` where that is not set."""
    return versions.default_root("prefixes")


class PrefixStore(versions.VersionedFiles):
    """Named, versioned prefixes in a folder. Several processes may use one; nothing is cached, so each sees the others' changes."""

    def __init__(self, root: str | os.PathLike[str] | None = None) -> None:
        """Args: root: the folder, made when something is first published; by default `default_root()`."""
        place = Path(root) if root is not None else default_root()
        super().__init__(place, noun="prefix", suffix="safetensors", check_name=partial(check_name, composed=True))

    def publish(self, prefix: Prefix) -> Reference:
        """Adds `prefix` as the next version of its name.

        The version appears whole or not at all, and never in place of another.

        Raises:
            StoreError: the folder cannot be written to.
            PrefixFileError: the disk is full or refuses.
        """
        from foreword.prefix import file

        return self._publish(prefix.name, lambda target: file.write_temporary(prefix, target))

    def load(self, ref: str | Reference, *, verify: bool = True) -> Prefix:
        """The prefix that a reference means, memory-mapped.

        Raises:
            StoreError: see `resolve`.
            PrefixFileError: the file is not sound.
        """
        from foreword.prefix import file

        return file.load(self.resolve(ref).path, verify=verify)

    def header(self, ref: str | Reference) -> PrefixHeader:
        """The header that a reference means, without torch; raises as `load`."""
        return read_header(self.resolve(ref).path)
