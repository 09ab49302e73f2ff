"""Look-ups in a store of versioned files, of prefixes or of prompts, for whoever may know of them.

Nothing has to be told to the server when a store changes. A look-up is kept for as long as the name's folder was not changed, which one
`stat` tells; publishing, removing and moving an alias all change the folder.
"""

from __future__ import annotations

import difflib
import logging
import os
import time
from dataclasses import dataclass

from foreword.errors import StoreError
from foreword.gateway.file_state import State, state_of
from foreword.gateway.tenants import Tenant
from foreword.store.versions import Listing, Reference, VersionedFiles

MOST_KEPT = 20_000
"""Look-ups kept; at more, all are dropped and found again."""
SETTLED_SECONDS = 2.0
"""A folder changed less long ago may change again without its time of change showing it, and is not kept."""
SUGGESTIONS_SECONDS = 2.0

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kept:
    folder: str
    state: State
    reference: Reference


class References:
    """Look-ups in one store."""

    def __init__(self, store: VersionedFiles) -> None:
        self._store = store
        self._kept: dict[str, _Kept] = {}
        self._suggestions: tuple[float, tuple[str, ...]] = (-SUGGESTIONS_SECONDS, ())

    def find(self, ref: str, tenant: Tenant) -> Reference | None:
        """The version that `name`, `name@alias` or `name@v3` means now; None where there is none for this tenant.

        One `stat` where nothing changed.
        """
        # Before anything is looked up, so that what a tenant may not see takes as long as what is not there.
        if not tenant.sees(ref.partition("@")[0]):
            return None
        kept = self._kept.get(ref)
        if kept is not None and state_of(kept.folder) == kept.state:
            return kept.reference
        self._kept.pop(ref, None)
        return self._looked_up(ref)

    def listings(self, tenant: Tenant) -> tuple[Listing, ...]:
        """What the store holds now for this tenant. Reads the whole store. Raises `StoreError`."""
        return tuple(listing for listing in self._store.list() if tenant.sees(listing.name))

    def near(self, ref: str, tenant: Tenant) -> list[str]:
        """Names like this one that the tenant may know of, the likest first. Reads the whole store now and then."""
        names = [name for name in self._all_names() if tenant.sees(name)]
        return difflib.get_close_matches(ref.partition("@")[0][:64], names, n=3)

    def _looked_up(self, ref: str) -> Reference | None:
        now = time.time_ns()
        folder = os.path.join(self._store.root, ref.partition("@")[0])
        # The folder's state is taken before its content, so that a change in between is seen next time.
        state = state_of(folder)
        if state is None:
            return None
        try:
            reference = self._store.resolve(ref)
        except StoreError as error:
            logger.info("a reference cannot be resolved: %s", error)
            return None
        if now - state[0] > SETTLED_SECONDS * 1e9:
            if len(self._kept) >= MOST_KEPT:
                self._kept.clear()
            self._kept[ref] = _Kept(folder=folder, state=state, reference=reference)
        return reference

    def _all_names(self) -> tuple[str, ...]:
        read_at, names = self._suggestions
        if time.monotonic() - read_at > SUGGESTIONS_SECONDS:
            try:
                names = tuple(listing.name for listing in self._store.list())
            except StoreError as error:
                logger.warning("the store cannot be listed: %s", error)
            self._suggestions = (time.monotonic(), names)
        return names
