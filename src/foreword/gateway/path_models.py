"""`GET /v1/models` along a path: `auto`, the models of the configuration, and the prefixes of those that run in this process."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping

import msgspec
from starlette.responses import Response

from foreword.errors import StoreError
from foreword.gateway.embedded import Embedded
from foreword.gateway.errors import not_found
from foreword.gateway.passage import Target
from foreword.gateway.path_settings import AUTO
from foreword.gateway.tenants import Tenant
from foreword.gateway.wire import ModelCard, ModelList

_STARTED = int(time.time())


class PathModels:
    """What clients can name."""

    def __init__(self, targets: Mapping[str, Target]) -> None:
        self._targets = targets

    async def listed(self, tenant: Tenant) -> Response:
        """All names that a tenant may use, compositions aside."""
        cards = await asyncio.to_thread(self._cards, tenant)
        return Response(msgspec.json.encode(ModelList(data=cards)), media_type="application/json")

    async def one(self, model: str, tenant: Tenant) -> Response:
        """One name, compositions included. Raises `Refusal` (404)."""
        name, colon, prefix = model.partition(":")
        card = ModelCard(id=model, created=_STARTED, parent=name if colon else None)
        if not colon and (name == AUTO or name in self._targets):
            return Response(msgspec.json.encode(card), media_type="application/json")
        target = self._targets.get(name)
        if prefix and isinstance(target, Embedded) and target.names is not None and target.names.find(target.own(model), tenant):
            return Response(msgspec.json.encode(card), media_type="application/json")
        raise not_found(f"No model is named `{model[:120]}` here. `GET /v1/models` lists what there is.")

    def _cards(self, tenant: Tenant) -> list[ModelCard]:
        cards = [ModelCard(id=AUTO, created=_STARTED)]
        for name, target in self._targets.items():
            cards.append(ModelCard(id=name, created=_STARTED))
            if isinstance(target, Embedded):
                cards += [ModelCard(id=f"{name}:{prefix}", created=_STARTED, parent=name) for prefix in _prefixes(target, tenant)]
        return cards


def _prefixes(target: Embedded, tenant: Tenant) -> list[str]:
    """Names and aliases of stored prefixes; none where the store cannot be read just now."""
    if target.names is None:
        return []
    try:
        listings = target.names.listings(tenant)
    except StoreError:
        return []
    return [name for one in listings for name in (one.name, *(f"{one.name}@{alias}" for alias in sorted(one.aliases)))]
