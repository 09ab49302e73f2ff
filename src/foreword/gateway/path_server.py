"""Puts a path together: its models, its stages, its ledger, and the application that answers everything else."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from types import SimpleNamespace
from typing import Any

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from foreword.cost.ledger import Ledger
from foreword.cost.rates import PriceTable
from foreword.errors import ConfigError
from foreword.gateway import health
from foreword.gateway.access import Access
from foreword.gateway.app import route_names
from foreword.gateway.embedded import Embedded
from foreword.gateway.errors import ClientGone, Refusal, on_client_gone, on_http_exception, on_refusal
from foreword.gateway.feedback import taken
from foreword.gateway.metrics import Metrics
from foreword.gateway.passage import Target
from foreword.gateway.path import Path
from foreword.gateway.path_app import CHAT, PathApp
from foreword.gateway.path_settings import AUTO, PathSettings
from foreword.gateway.service import BODY_BYTES, Service, Traffic
from foreword.gateway.stage import Parts
from foreword.gateway.tenants import EVERYBODY, AdminKey, Keyring
from foreword.gateway.upstream import Upstream
from foreword.gateway.wire import ModelCard, ModelList
from foreword.prompting.store import PromptStore
from foreword.retrieval.embedder import Embedder
from foreword.store.database import open_database


@dataclass(slots=True, kw_only=True, eq=False)
class PathService:
    """A path as it is served. Meets `server.Served`.

    Attributes:
        inside: the service of the model in this process; None where there is none.
    """

    path: Path
    parts: Parts
    metrics: Metrics
    inside: Service | None
    keys: Keyring | None
    admin: AdminKey | None
    traffic: Traffic = field(default_factory=Traffic)

    async def cut_short(self) -> None:
        """Ends what is under way in this process; calls of other servers end with their requests."""
        if self.inside is not None:
            await self.inside.cut_short()

    async def close(self) -> None:
        """Ends the stages and the connections, and writes the ledger to its end."""
        await self.path.close()
        for target in self.parts.targets.values():
            if isinstance(target, Upstream):
                await target.close()
        if self.inside is not None:
            await self.inside.close()
        if self.parts.ledger is not None:
            await asyncio.to_thread(self.parts.ledger.close)


class PathServer:
    """The whole as one ASGI application, for `server.run`."""

    def __init__(self, service: PathService, app: ASGIApp) -> None:
        self.state = SimpleNamespace(service=service)
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        await self._app(scope, receive, send)


def build_path(
    settings: PathSettings,
    *,
    inside: Starlette | None = None,
    keys: Keyring | None = None,
    admin_key: AdminKey | None = None,
    body_bytes: int = BODY_BYTES,
    prompts: PromptStore | None = None,
    embedder: Embedder | None = None,
    environment: dict[str, str] | None = None,
) -> PathServer:
    """The path that the settings describe.

    Args:
        inside: the application of the model that runs in this process (`app.build`, not `watched`); needed where the settings have one.
        embedder: needed where a task type has a semantic cache, passages, or an intake or router that was learned.
        environment: where keys are looked up; by default the process's own.

    Raises:
        ConfigError: a key's variable is not set, or a part that the settings need is missing.
        StoreError: the ledger cannot be opened.
    """
    service_inside: Service | None = None if inside is None else inside.state.service
    targets = {name: _target(name, settings, inside, os.environ if environment is None else environment) for name in settings.models}
    own = {name: price for name in settings.models if (price := settings.model(name).price) is not None}
    parts = Parts(
        settings=settings,
        targets=targets,
        prices=PriceTable(own),
        prompts=prompts,
        embedder=embedder,
        ledger=_ledger(settings),
        closing=[],
    )
    metrics = service_inside.metrics if service_inside is not None else Metrics(None)
    service = PathService(path=Path.of(parts), parts=parts, metrics=metrics, inside=service_inside, keys=keys, admin=admin_key)
    behind = _behind(settings, service, inside)
    app = PathApp(service.path, settings, behind=behind, keys=keys, body_bytes=body_bytes)
    return PathServer(service, Access(app, service=service, routes=route_names() | {CHAT: CHAT}))


def _target(name: str, settings: PathSettings, inside: ASGIApp | None, environment: Any) -> Target:
    model = settings.model(name)
    if model.engine is not None:
        if inside is None:
            raise ConfigError(f"The model `{name}` runs in this process, and none was loaded. Load it, and give `inside`.")
        return Embedded(name, model, inside)
    key = None
    if model.key_env is not None:
        key = environment.get(model.key_env)
        if not key:
            raise ConfigError(f"The model `{name}` needs its key in the environment variable `{model.key_env}`, which is not set. Set it.")
    return Upstream(name, model, key=key)


def _ledger(settings: PathSettings) -> Ledger | None:
    place = settings.store.ledger
    if place == "none":
        return None
    return Ledger(open_database(place or default_ledger()))


def default_ledger() -> FilePath:
    """`ledger.sqlite` in `FOREWORD_HOME`, or in `~/.foreword`."""
    return FilePath(os.environ.get("FOREWORD_HOME") or FilePath.home() / ".foreword") / "ledger.sqlite"


def _behind(settings: PathSettings, service: PathService, inside: Starlette | None) -> Starlette:
    """What answers everything but chat."""

    async def models(request: Request) -> Response:
        if service.keys is not None:
            service.keys.tenant(request.headers.get("authorization"))
        cards = [ModelCard(id=name, created=0) for name in (AUTO, *settings.models)]
        return Response(msgspec.json.encode(ModelList(data=cards)), media_type="application/json")

    async def feedback(request: Request) -> Response:
        tenant = EVERYBODY if service.keys is None else service.keys.tenant(request.headers.get("authorization"))
        return await taken(request, service.parts.ledger, tenant)

    routes: list[Any] = [
        Route("/v1/models", models, methods=["GET"]),
        Route("/v1/feedback", feedback, methods=["POST"]),
        Route("/healthz", health.healthz, methods=["GET"]),
        Route("/readyz", health.readyz, methods=["GET"]),
        Route("/metrics", health.metrics, methods=["GET"]),
    ]
    handlers: dict[Any, Any] = {Refusal: on_refusal, ClientGone: on_client_gone, HTTPException: on_http_exception}
    app = Starlette(routes=routes, exception_handlers=handlers)
    if inside is not None:
        app.router.default = inside
    app.router.redirect_slashes = False
    app.state.service = service
    return app
