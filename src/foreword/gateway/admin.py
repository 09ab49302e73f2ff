"""`/admin/prefixes`: what the store holds, what the engine holds in memory, and how to change the latter. Only with an admin key."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from foreword.gateway.errors import Refusal, not_found
from foreword.gateway.reading import read
from foreword.gateway.service import Service, service_of
from foreword.gateway.tenants import EVERYBODY
from foreword.gateway.wire import LoadOrder, PrefixList, PrefixState, StoredPrefix, StoredVersion
from foreword.prefix.store import Listing, Reference

_DECODER = msgspec.json.Decoder(LoadOrder)


async def prefixes(request: Request) -> Response:
    """The store and the engine's memory."""
    service = _opened(request)
    resident = await service.bridge.call(service.engine.resident)
    listings = await asyncio.to_thread(service.names.listings, EVERYBODY)
    body = await asyncio.to_thread(_listed, service, listings, resident)
    return Response(msgspec.json.encode(body), media_type="application/json")


async def load_prefix(request: Request) -> Response:
    """Reads a prefix, or a composition, into memory; a pinned one stays until it is unloaded."""
    service = _opened(request)
    order = await read(request, _DECODER, most_bytes=service.body_bytes, empty=b"{}")
    files = _files(service, request)
    await service.bridge.call(lambda: service.engine.keep(files, pinned=order.pinned))
    if order.pinned:
        service.pinned.add(files)
    state = PrefixState(name=request.path_params["name"], resident=True, pinned=files in service.pinned)
    return Response(msgspec.json.encode(state), media_type="application/json")


async def unload_prefix(request: Request) -> Response:
    """Takes a prefix out of memory, pinned or not; requests under way keep it."""
    service = _opened(request)
    files = _files(service, request)
    await service.bridge.call(lambda: service.engine.let_go(files))
    service.pinned.discard(files)
    state = PrefixState(name=request.path_params["name"], resident=False, pinned=False)
    return Response(msgspec.json.encode(state), media_type="application/json")


def _opened(request: Request) -> Service:
    service = service_of(request)
    if service.admin is None:
        raise Refusal(404, "The admin routes are closed. They open when the server is started with an admin key.", code="admin_closed")
    service.admin.check(request.headers.get("authorization"))
    return service


def _files(service: Service, request: Request) -> tuple[Path, ...]:
    references = service.names.references(request.path_params["name"], EVERYBODY)
    if references is None:
        raise not_found(f"No prefix is named `{request.path_params['name'][:120]}`. `GET /admin/prefixes` lists them.", param="name")
    return tuple(reference.path for reference in references)


def _listed(service: Service, listings: Sequence[Listing], resident: Sequence[tuple[Path, ...]]) -> PrefixList:
    held = set(resident)
    names = []
    for listing in listings:
        paths = {version: _path(service, listing.name, version) for version in listing.versions}
        versions = [
            StoredVersion(
                version=version, bytes=_bytes(path), resident=(path,) in held, pinned=(path,) in service.pinned and (path,) in held
            )
            for version, path in paths.items()
        ]
        names.append(StoredPrefix(name=listing.name, versions=versions, aliases=dict(listing.aliases)))
    # A path of the store is name/version; more than its name would tell where the store lies.
    compositions = [[path.parent.name for path in files] for files in resident if len(files) > 1]
    return PrefixList(prefixes=names, compositions=compositions, resident_bytes=service.engine.load().resident_bytes)


def _path(service: Service, name: str, version: int) -> Path:
    return Reference(name=name, version=version, path=service.names.store.root / name / f"v{version:04d}.safetensors").path


def _bytes(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        # Removed since it was listed.
        return 0
