"""`POST /v1/feedback`: whoever got an answer says whether it was a success. The last word counts, against what a check had found."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Literal

import msgspec
from msgspec import Meta
from starlette.requests import Request
from starlette.responses import Response

from foreword.cost.ledger import Ledger
from foreword.gateway.errors import Refusal
from foreword.gateway.reading import read
from foreword.gateway.tenants import Tenant
from foreword.gateway.wire import Strict

MOST_BYTES = 10_000


class Feedback(Strict, frozen=True, kw_only=True):
    """`id` is that of the answer, as its body and every chunk of its stream have it."""

    id: Annotated[str, Meta(min_length=1, max_length=64)]
    success: bool


class Taken(msgspec.Struct, frozen=True):
    """That it was taken on."""

    id: str
    object: Literal["feedback"] = "feedback"


_DECODER = msgspec.json.Decoder(Feedback)


async def taken(request: Request, ledger: Ledger | None, tenant: Tenant) -> Response:
    """Writes feedback down. That of another tenant's answer has no effect, and nobody is told whose an answer is.

    Raises:
        Refusal: 404 where nothing is written down, and as `read`.
    """
    body = await read(request, _DECODER, most_bytes=MOST_BYTES)
    if ledger is None:
        raise Refusal(404, "This server keeps no ledger, so there is nothing to say of an answer.", code="no_ledger", param=None)
    ledger.feedback(body.id, tenant=tenant.name, success=body.success, at=datetime.now(UTC))
    return Response(msgspec.json.encode(Taken(id=body.id)), media_type="application/json")
