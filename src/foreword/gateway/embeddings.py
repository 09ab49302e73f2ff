"""`POST /v1/embeddings`: there is no embedding model to answer it with, and this says so."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from foreword.gateway.errors import Refusal
from foreword.gateway.service import service_of


async def embeddings(request: Request) -> Response:
    """Refuses. Raises `Refusal` (404; 401 without a key where one is needed)."""
    service_of(request).tenant(request)
    raise Refusal(404, "Embeddings are not configured on this server.", code="not_configured")
