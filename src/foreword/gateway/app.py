"""Puts the served path together: one ASGI application for one engine and one prefix store."""

from __future__ import annotations

from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.routing import Route

from foreword.engine import Serves
from foreword.errors import ForewordError
from foreword.gateway import admin, health, models
from foreword.gateway.access import Access
from foreword.gateway.bridge import Bridge
from foreword.gateway.chat import chat_completions
from foreword.gateway.completions import completions
from foreword.gateway.embeddings import embeddings
from foreword.gateway.errors import ClientGone, Refusal, on_client_gone, on_foreword_error, on_http_exception, on_refusal
from foreword.gateway.gating import Gate
from foreword.gateway.metrics import Metrics
from foreword.gateway.naming import Names
from foreword.gateway.prompts import Prompts
from foreword.gateway.service import BODY_BYTES, Service
from foreword.gateway.stands_for import StandIns
from foreword.gateway.strategies import OFFER, Offer, Strategies
from foreword.gateway.tenants import AdminKey, Keyring
from foreword.prefix.store import PrefixStore
from foreword.prompting.store import PromptStore
from foreword.retrieval.embedder import Embedder

ROUTES = (
    Route("/v1/chat/completions", chat_completions, methods=["POST"]),
    Route("/v1/completions", completions, methods=["POST"]),
    Route("/v1/embeddings", embeddings, methods=["POST"]),
    Route("/v1/models", models.models, methods=["GET"]),
    Route("/v1/models/{model:path}", models.model, methods=["GET"]),
    Route("/admin/prefixes", admin.prefixes, methods=["GET"]),
    Route("/admin/prefixes/{name}/load", admin.load_prefix, methods=["POST"]),
    Route("/admin/prefixes/{name}/unload", admin.unload_prefix, methods=["POST"]),
    Route("/metrics", health.metrics, methods=["GET"]),
    Route("/healthz", health.healthz, methods=["GET"]),
    Route("/readyz", health.readyz, methods=["GET"]),
    Route("/openapi.json", health.openapi, methods=["GET"]),
)


def route_names() -> dict[Any, str]:
    """Each endpoint's route, as its template reads."""
    return {route.endpoint: route.path.replace(":path", "") for route in ROUTES}


def build(
    engine: Serves,
    *,
    base: str,
    store: PrefixStore,
    keys: Keyring | None = None,
    admin_key: AdminKey | None = None,
    body_bytes: int = BODY_BYTES,
    substitute: bool = True,
    gate: Embedder | None = None,
    prompts: PromptStore | None = None,
    strategies: Offer | None = OFFER,
    watched: bool = True,
) -> Starlette:
    """The application. Its `state.service` is the `Service` that the server drains when it stops.

    Args:
        base: what the frozen model is called in requests; its prefixes are `base:name`.
        store: where prefixes are looked up, anew for each request.
        keys: who may send requests; None lets everybody.
        admin_key: opens the admin routes; None leaves them closed.
        body_bytes: largest body that is read.
        substitute: serve requests to the frozen model from prefixes that stand for their first messages.
        gate: the embedder by which the prefixes' detectors judge requests; None attaches every prefix that is asked for.
        prompts: where requests' prompts are looked up, anew for each; None refuses requests for one.
        strategies: what strategies may take and use; None refuses requests for one.
        watched: count and log requests here; not where an application in front of this one does.
    """
    metrics = Metrics(engine)
    service = Service(
        engine=engine,
        names=Names(base, store),
        bridge=Bridge(engine),
        metrics=metrics,
        keys=keys,
        admin=admin_key,
        body_bytes=body_bytes,
        stand_ins=StandIns(store) if substitute else None,
        gate=None if gate is None else Gate(gate, metrics),
        # As many characters as a client could send bytes of itself.
        prompts=None if prompts is None else Prompts(prompts, most_characters=body_bytes),
        strategies=None if strategies is None else Strategies(strategies, metrics),
    )
    app = Starlette(
        routes=ROUTES,
        middleware=[Middleware(Access, service=service, routes=route_names())] if watched else [],
        exception_handlers={
            Refusal: on_refusal,
            ClientGone: on_client_gone,
            ForewordError: on_foreword_error,
            HTTPException: on_http_exception,
        },
    )
    # `/v1/models/` is not `/v1/models`, and a redirect would drop the key from some clients' requests.
    app.router.redirect_slashes = False
    app.state.service = service
    return app
