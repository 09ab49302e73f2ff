"""Which prefix a model's name means: `base`, `base:prefix`, `base:prefix@alias`, or several joined by `+`.

Nothing has to be told to the server when the store changes. A look-up is kept for as long as the prefix's folder was not changed, which
one `stat` tells; publishing, removing and moving an alias all change the folder.
"""

from __future__ import annotations

import asyncio
import difflib
import logging
import os
import time
from dataclasses import dataclass
from pathlib import Path

from foreword.errors import StoreError
from foreword.gateway.errors import Refusal, not_found
from foreword.gateway.file_state import State, state_of
from foreword.gateway.tenants import Tenant
from foreword.prefix.store import Listing, PrefixStore, Reference

MOST_PARTS = 8
MOST_KEPT = 20_000
"""Look-ups kept; at more, all are dropped and found again."""
SETTLED_SECONDS = 2.0
"""A folder changed less long ago may change again without its time of change showing it, and is not kept."""
SUGGESTIONS_SECONDS = 2.0

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """What a model's name means.

    Attributes:
        model: the name as it was asked for.
        label: the prefix's name without version, for metrics; of a composition, the first part's with `+*`; empty for none.
        references: versions of the store, in the order in which they stand before the prompt.
    """

    model: str
    label: str = ""
    references: tuple[Reference, ...] = ()

    @property
    def files(self) -> tuple[Path, ...]:
        """The prefixes' files."""
        return tuple(reference.path for reference in self.references)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kept:
    folder: str
    state: State
    reference: Reference


class Names:
    """Look-ups in one store for one frozen model."""

    def __init__(self, base: str, store: PrefixStore) -> None:
        """Args: base: what the frozen model is called in requests."""
        self.base = base
        self.store = store
        self._kept: dict[str, _Kept] = {}
        self._suggestions: tuple[float, tuple[str, ...]] = (-SUGGESTIONS_SECONDS, ())

    async def named(self, model: str, tenant: Tenant) -> Named:
        """What `model` means for this tenant. Raises `Refusal` (404), which suggests near names that the tenant may know of."""
        found = self.find(model, tenant)
        if found is not None:
            return found
        # Reads the whole store, so not on the event loop.
        raise await asyncio.to_thread(self._unknown, model, tenant)

    def find(self, model: str, tenant: Tenant) -> Named | None:
        """The same without an error: None where there is no such name. One `stat` per prefix where nothing changed."""
        if model == self.base:
            return Named(model=model)
        # Not split at the colon: the base's own name may hold one.
        start = f"{self.base}:"
        references = self.references(model.removeprefix(start), tenant) if model.startswith(start) else None
        if references is None:
            return None
        label = references[0].name if len(references) == 1 else f"{references[0].name}+*"
        return Named(model=model, label=label, references=references)

    def references(self, ref: str, tenant: Tenant) -> tuple[Reference, ...] | None:
        """The versions that `prefix`, `prefix@alias` or `task+user` mean; a stored name that holds a `+` goes before a composition."""
        whole = self._reference(ref, tenant)
        if whole is not None:
            return (whole,)
        parts = ref.split("+")
        if not 2 <= len(parts) <= MOST_PARTS:
            return None
        found = [self._reference(part, tenant) for part in parts]
        return None if None in found else tuple(reference for reference in found if reference is not None)

    def listings(self, tenant: Tenant) -> tuple[Listing, ...]:
        """What the store holds now for this tenant. Reads the whole store. Raises `StoreError`."""
        return tuple(listing for listing in self.store.list() if tenant.sees(listing.name))

    def _reference(self, ref: str, tenant: Tenant) -> Reference | None:
        # Before anything is looked up, so that what a tenant may not see takes as long as what is not there.
        if not tenant.sees(ref.partition("@")[0]):
            return None
        kept = self._kept.get(ref)
        if kept is not None and state_of(kept.folder) == kept.state:
            return kept.reference
        self._kept.pop(ref, None)
        return self._looked_up(ref)

    def _looked_up(self, ref: str) -> Reference | None:
        now = time.time_ns()
        folder = os.path.join(self.store.root, ref.partition("@")[0])
        # The folder's state is taken before its content, so that a change in between is seen next time.
        state = state_of(folder)
        if state is None:
            return None
        try:
            reference = self.store.resolve(ref)
        except StoreError as error:
            logger.info("a reference cannot be resolved: %s", error)
            return None
        if now - state[0] > SETTLED_SECONDS * 1e9:
            if len(self._kept) >= MOST_KEPT:
                self._kept.clear()
            self._kept[ref] = _Kept(folder=folder, state=state, reference=reference)
        return reference

    def _unknown(self, model: str, tenant: Tenant) -> Refusal:
        shown = model[:120]
        prefix = model.removeprefix(f"{self.base}:")
        if prefix == model:
            return not_found(f"No model is named `{shown}` here. This server has `{self.base}`, alone or as `{self.base}:PREFIX`.")
        names = [name for name in self._all_names() if tenant.sees(name)]
        near = difflib.get_close_matches(prefix.partition("@")[0][:64], names, n=3)
        hint = f"Did you mean {' or '.join(f'`{self.base}:{name}`' for name in near)}?" if near else "`GET /v1/models` lists what there is."
        return not_found(f"No model is named `{shown}` here. {hint}")

    def _all_names(self) -> tuple[str, ...]:
        read_at, names = self._suggestions
        if time.monotonic() - read_at > SUGGESTIONS_SECONDS:
            try:
                names = tuple(listing.name for listing in self.store.list())
            except StoreError as error:
                logger.warning("the store cannot be listed: %s", error)
            self._suggestions = (time.monotonic(), names)
        return names
