"""`GET /admin/cost`: what `foreword cost --json` prints, for whoever has the admin key."""

from __future__ import annotations

import asyncio

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from foreword.cost.figures import figures
from foreword.cost.ledger import Ledger
from foreword.errors import ConfigError
from foreword.gateway.errors import Refusal
from foreword.gateway.tenants import AdminKey

_KNOWN = frozenset({"by", "since", "until", "tenant", "stages"})


async def cost_answer(request: Request, ledger: Ledger | None, admin: AdminKey | None) -> Response:
    """The report, what is recorded by now included. Query: `by`, `since`, `until`, `tenant`, `stages=true`.

    Raises:
        Refusal: 400 a parameter that cannot be used; 401 without the key; 404 where there is no admin key, or no ledger.
    """
    if admin is None:
        raise Refusal(404, "The admin routes are closed. They open when the server is started with an admin key.", code="admin_closed")
    admin.check(request.headers.get("authorization"))
    if ledger is None:
        raise Refusal(404, "This server keeps no ledger, so there is nothing to report.", code="no_ledger")
    asked = dict(request.query_params)
    unknown = sorted(set(asked) - _KNOWN)
    if unknown:
        name = unknown[0][:64]
        raise Refusal(400, f"`{name}` is not known here. There are {', '.join(sorted(_KNOWN))}.", code="unknown_parameter", param=name)
    stages = asked.pop("stages", "false")
    if stages not in ("true", "false"):
        raise Refusal(400, f"`stages` is `true` or `false`; got {stages[:40]!r}.", code="invalid_value", param="stages")

    def report() -> bytes:
        ledger.flush()
        return msgspec.json.encode({"object": "list", "data": figures(ledger.database, stages=stages == "true", **asked)})

    try:
        return Response(await asyncio.to_thread(report), media_type="application/json")
    except ConfigError as error:
        raise Refusal(400, str(error), code="invalid_value") from None
