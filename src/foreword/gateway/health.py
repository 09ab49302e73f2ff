"""Routes for whoever watches the server: alive, ready, figures, and what the API looks like."""

from __future__ import annotations

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from foreword.gateway.errors import Refusal
from foreword.gateway.metrics import CONTENT_TYPE
from foreword.gateway.openapi import document
from foreword.gateway.service import service_of
from foreword.gateway.wire import Health

_OK, _DRAINING = msgspec.json.encode(Health(status="ok")), msgspec.json.encode(Health(status="draining"))


async def healthz(request: Request) -> Response:
    """200 for as long as the process answers."""
    return Response(_OK, media_type="application/json")


async def readyz(request: Request) -> Response:
    """200 while requests are taken on, 503 once the server is about to stop."""
    draining = service_of(request).traffic.draining
    return Response(_DRAINING if draining else _OK, status_code=503 if draining else 200, media_type="application/json")


async def metrics(request: Request) -> Response:
    """Prometheus's figures. They name prefixes, so where tenants have keys the admin key is asked for."""
    service = service_of(request)
    if service.keys is not None:
        if service.admin is None:
            raise Refusal(
                404, "The figures of a server with API keys are shown only to its admin key, and it has none.", code="admin_closed"
            )
        service.admin.check(request.headers.get("authorization"))
    return Response(service.metrics.text(), headers={"content-type": CONTENT_TYPE})


async def openapi(request: Request) -> Response:
    """The OpenAPI document."""
    return Response(msgspec.json.encode(document()), media_type="application/json")
