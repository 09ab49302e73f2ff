"""`GET /v1/models` and `GET /v1/models/{model}`: the frozen model, one name for each prefix and alias, and one for each strategy.

Strategies are listed over the frozen model alone, with their default settings; all others over all that can be asked are found by name.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from foreword.gateway.naming import Names
from foreword.gateway.service import service_of
from foreword.gateway.strategies import is_strategy, names_over
from foreword.gateway.tenants import Tenant
from foreword.gateway.wire import ModelCard, ModelList
from foreword.prefix.store import Listing

_STARTED = int(time.time())


async def models(request: Request) -> Response:
    """Every name that this tenant may use, compositions and most strategies aside."""
    service = service_of(request)
    tenant = service.tenant(request)
    cards = await asyncio.to_thread(_cards, service.names, tenant, with_strategies=service.strategies is not None)
    return Response(msgspec.json.encode(ModelList(data=cards)), media_type="application/json")


async def model(request: Request) -> Response:
    """One name, compositions and strategies included."""
    service = service_of(request)
    tenant = service.tenant(request)
    name = asked = request.path_params["model"]
    if service.strategies is not None and is_strategy(asked):
        _, name = await service.strategies.read(asked)
    named = await service.names.named(name, tenant)
    created = _changed(named.files[0]) if named.files else _STARTED
    card = ModelCard(id=asked, created=created, parent=service.names.base if asked != service.names.base else None)
    return Response(msgspec.json.encode(card), media_type="application/json")


def _cards(names: Names, tenant: Tenant, *, with_strategies: bool) -> list[ModelCard]:
    cards = [ModelCard(id=names.base, created=_STARTED)]
    for listing in names.listings(tenant):
        created = _changed(names.store.root / listing.name)
        cards += [ModelCard(id=name, created=created, parent=names.base) for name in _names(names.base, listing)]
    if with_strategies:
        cards += [ModelCard(id=name, created=_STARTED, parent=names.base) for name in names_over(names.base)]
    return cards


def _names(base: str, listing: Listing) -> list[str]:
    return [f"{base}:{listing.name}", *(f"{base}:{listing.name}@{alias}" for alias in sorted(listing.aliases))]


def _changed(path: Path) -> int:
    try:
        return int(path.stat().st_mtime)
    except OSError:
        # Removed since it was found.
        return _STARTED
