"""Which prefix a model's name means: `base`, `base:prefix`, `base:prefix@alias`, or several joined by `+`."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path

from foreword.gateway.errors import Refusal, not_found
from foreword.gateway.references import References
from foreword.gateway.tenants import Tenant
from foreword.prefix.store import Listing, PrefixStore, Reference

MOST_PARTS = 8


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


class Names:
    """Look-ups in one store for one frozen model."""

    def __init__(self, base: str, store: PrefixStore) -> None:
        """Args: base: what the frozen model is called in requests."""
        self.base = base
        self.store = store
        self._references = References(store)

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
        whole = self._references.find(ref, tenant)
        if whole is not None:
            return (whole,)
        parts = ref.split("+")
        if not 2 <= len(parts) <= MOST_PARTS:
            return None
        found = [self._references.find(part, tenant) for part in parts]
        return None if None in found else tuple(reference for reference in found if reference is not None)

    def listings(self, tenant: Tenant) -> tuple[Listing, ...]:
        """What the store holds now for this tenant. Reads the whole store. Raises `StoreError`."""
        return self._references.listings(tenant)

    def _unknown(self, model: str, tenant: Tenant) -> Refusal:
        shown = model[:120]
        prefix = model.removeprefix(f"{self.base}:")
        if prefix == model:
            return not_found(f"No model is named `{shown}` here. This server has `{self.base}`, alone or as `{self.base}:PREFIX`.")
        near = self._references.near(prefix, tenant)
        hint = f"Did you mean {' or '.join(f'`{self.base}:{name}`' for name in near)}?" if near else "`GET /v1/models` lists what there is."
        return not_found(f"No model is named `{shown}` here. {hint}")
