"""From `base:my-prefix`, the name that a client gives, to one version of one prefix in the store. Reaches no torch."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from foreword.errors import StoreError
from foreword.prefix.header import PrefixHeader, read_header
from foreword.prefix.store import LATEST, PrefixStore

SEPARATOR = ":"
HEADERS_KEPT = 8192
"""Headers remembered; one takes a few kilobytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelName:
    """What a client's `model` field asks for. `prefix` is a reference such as `support@prod`, or None for the bare model."""

    base: str
    prefix: str | None


def parse(model: str, served: Collection[str]) -> ModelName | None:
    """Splits a model name, or None where it starts with no model that is served.

    Args:
        served: names that vLLM itself answers to. One of them is never read as a model with a prefix.
    """
    if model in served:
        return ModelName(base=model, prefix=None)
    for base in sorted(served, key=len, reverse=True):
        if model.startswith(base + SEPARATOR):
            return ModelName(base=base, prefix=model[len(base) + len(SEPARATOR) :])
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """What tells one content of a path from another without reading it; a file put in the place of another has its own."""

    path: str
    device: int
    inode: int
    size: int
    modified_ns: int

    @classmethod
    def of(cls, path: Path) -> Identity:
        """Raises OSError where the file is gone."""
        status = os.stat(path)
        return cls(path=str(path), device=status.st_dev, inode=status.st_ino, size=status.st_size, modified_ns=status.st_mtime_ns)


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """One version of a prefix. `reference` names the version, as `support@v3`, so that it means the same at any later time."""

    reference: str
    identity: Identity
    header: PrefixHeader

    @property
    def path(self) -> Path:
        """Where the file lay when it was found."""
        return Path(self.identity.path)


class Names:
    """Looks references up in a store. What is published, replaced or removed there counts from the next look-up on."""

    def __init__(self, store: PrefixStore) -> None:
        self._store = store
        self._headers: OrderedDict[Identity, PrefixHeader] = OrderedDict()

    def find(self, reference: str) -> Found:
        """The version that `reference` means now.

        Raises:
            StoreError: it is malformed, or there is no such name, version or alias.
            PrefixFileError: the file's header is not sound.
        """
        resolved = self._store.resolve(reference)
        try:
            identity = Identity.of(resolved.path)
        except FileNotFoundError:
            raise StoreError(f"Prefix `{resolved}` was removed just now. Ask for another version.") from None
        header = self._headers.get(identity)
        if header is None:
            header = self._headers[identity] = read_header(resolved.path)
            if len(self._headers) > HEADERS_KEPT:
                self._headers.popitem(last=False)
        else:
            self._headers.move_to_end(identity)
        return Found(reference=str(resolved), identity=identity, header=header)

    def listed(self) -> tuple[str, ...]:
        """References that clients can use: every name, and every name with each of its aliases. Reads the store's folders."""
        references = []
        for listing in self._store.list():
            references.append(listing.name)
            references += [f"{listing.name}@{alias}" for alias in sorted(listing.aliases) if alias != LATEST]
        return tuple(references)
