"""Puts a path together: its models, its stages, its ledger, and the application that answers everything else."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass, field, replace
from pathlib import Path as FilePath
from types import SimpleNamespace
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from foreword.cost.ledger import Ledger
from foreword.cost.rates import PriceTable
from foreword.errors import ConfigError, ForewordError
from foreword.gateway import health
from foreword.gateway.access import Access
from foreword.gateway.app import route_names
from foreword.gateway.batch_store import BatchStore
from foreword.gateway.batch_work import BatchWork
from foreword.gateway.batches import Batches
from foreword.gateway.cost_route import cost_answer
from foreword.gateway.embedded import Embedded
from foreword.gateway.errors import ClientGone, Refusal, on_client_gone, on_foreword_error, on_http_exception, on_refusal
from foreword.gateway.feedback import taken
from foreword.gateway.metrics import Metrics
from foreword.gateway.passage import Target
from foreword.gateway.path import Path
from foreword.gateway.path_app import CHAT, TEXTS, PathApp
from foreword.gateway.path_models import PathModels
from foreword.gateway.path_settings import PathSettings
from foreword.gateway.service import BODY_BYTES, Service, Traffic
from foreword.gateway.stage import Parts, Stage, make
from foreword.gateway.tenants import EVERYBODY, AdminKey, Keyring, Tenant
from foreword.gateway.upstream import Upstream
from foreword.prompting.store import PromptStore
from foreword.retrieval.embedder import Embedder
from foreword.store.database import open_database


@dataclass(slots=True, kw_only=True, eq=False)
class PathService:
    """A path as it is served. Meets `server.Served`.

    Attributes:
        inside: the service of the model in this process; None where there is none.
        work: what works batches off; None where `/v1/batches` is closed.
    """

    path: Path
    parts: Parts
    metrics: Metrics
    inside: Service | None
    keys: Keyring | None
    admin: AdminKey | None
    traffic: Traffic = field(default_factory=Traffic)
    work: BatchWork | None = None

    def tenant(self, request: Request) -> Tenant:
        """Who asks. Raises `Refusal` (401)."""
        return EVERYBODY if self.keys is None else self.keys.tenant(request.headers.get("authorization"))

    async def begin(self) -> None:
        """Goes on with the batches that there are."""
        if self.work is not None:
            self.work.start()

    async def cut_short(self) -> None:
        """Ends what is under way in this process; calls of other servers end with their requests."""
        if self.work is not None:
            await self.work.stop()
        if self.inside is not None:
            await self.inside.cut_short()

    async def close(self) -> None:
        """Ends the stages and the connections, and writes the ledger to its end."""
        if self.work is not None:
            await self.work.close()
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
    batches = _batches(settings, service, body_bytes)
    routes = [*_routes(service), *([] if batches is None else batches.routes())]
    texts = None if inside is None else service.path.for_texts(_infer_texts(parts))
    app = PathApp(service.path, settings, behind=_behind(service, routes, inside), keys=keys, body_bytes=body_bytes, texts=texts)
    named = {route.endpoint: route.path.replace(":path", "") for route in routes}
    return PathServer(service, Access(app, service=service, routes={**route_names(), **named, CHAT: CHAT, TEXTS: TEXTS}))


def _infer_texts(parts: Parts) -> Stage:
    """`infer` for texts: only models in this process go on from one, and none stands in for another."""
    models = {name: model.model_copy(update={"secondary": None, "hedge_seconds": None}) for name, model in parts.settings.models.items()}
    targets = {name: target for name, target in parts.targets.items() if isinstance(target, Embedded)}
    return make("infer", replace(parts, settings=parts.settings.model_copy(update={"models": models}), targets=targets))


def _target(name: str, settings: PathSettings, inside: Starlette | None, environment: Any) -> Target:
    model = settings.model(name)
    if model.engine is not None:
        if inside is None:
            raise ConfigError(f"The model `{name}` runs in this process, and none was loaded. Load it, and give `inside`.")
        names = inside.state.service.names
        # A model that is a folder is not called by its place on this machine.
        return Embedded(name, model.model_copy(update={"model": names.base}), inside, names=names)
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


def _batches(settings: PathSettings, service: PathService, body_bytes: int) -> Batches | None:
    """The routes of batches, and what works them off; None where nothing is to be kept. Raises `ConfigError`, `StoreError`."""
    place = batches_place(settings)
    if place is None:
        return None
    store = BatchStore(open_database(place))
    service.work = BatchWork(store, service.path, service.parts, service.traffic, body_bytes=body_bytes)
    return Batches(store=store, work=service.work, settings=settings.batches, tenant=service.tenant)


def batches_place(settings: PathSettings) -> str | FilePath | None:
    """Where batches are kept: where the settings say, or else beside the ledger; None where they are not."""
    ledger, place = settings.store.ledger, settings.store.batches
    if place is not None:
        return None if place == "none" else place
    if ledger == "none":
        return None
    if ledger is not None and "://" in ledger:
        return ledger
    return FilePath(ledger or default_ledger()).with_name("batches.sqlite")


def _routes(service: PathService) -> list[Route]:
    """What is answered here, and by no stage."""
    known = PathModels(service.parts.targets)

    async def models(request: Request) -> Response:
        return await known.listed(service.tenant(request))

    async def model(request: Request) -> Response:
        return await known.one(request.path_params["model"], service.tenant(request))

    async def feedback(request: Request) -> Response:
        return await taken(request, service.parts.ledger, service.tenant(request))

    async def cost(request: Request) -> Response:
        return await cost_answer(request, service.parts.ledger, service.admin)

    return [
        Route("/v1/models", models, methods=["GET"]),
        Route("/v1/models/{model:path}", model, methods=["GET"]),
        Route("/v1/feedback", feedback, methods=["POST"]),
        Route("/admin/cost", cost, methods=["GET"]),
        Route("/healthz", health.healthz, methods=["GET"]),
        Route("/readyz", health.readyz, methods=["GET"]),
        Route("/metrics", health.metrics, methods=["GET"]),
    ]


def _behind(service: PathService, routes: list[Route], inside: Starlette | None) -> Starlette:
    """What answers everything that does not walk the path."""
    handlers: dict[Any, Any] = {
        Refusal: on_refusal,
        ClientGone: on_client_gone,
        ForewordError: on_foreword_error,
        HTTPException: on_http_exception,
    }
    app = Starlette(routes=routes, exception_handlers=handlers)
    if inside is not None:
        app.router.default = inside
    app.router.redirect_slashes = False
    app.state.service = service
    return app
