"""Stages walked alone: the parts that they are made of, and passages as `PathApp` builds them."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import msgspec

from foreword.cost.rates import PriceTable
from foreword.gateway.passage import Passage
from foreword.gateway.path_settings import PathSettings, build_settings
from foreword.gateway.path_wire import REQUEST
from foreword.gateway.server import Stop, serve
from foreword.gateway.stage import Parts
from foreword.gateway.tenants import EVERYBODY, Tenant
from foreword.gateway.upstream import Upstream
from foreword.prompting.store import PromptStore
from foreword.retrieval.embedder import Embedder

PATIENCE = 30.0
NOWHERE = "http://127.0.0.1:9/v1"


def settings_of(tasks: Mapping[str, Any] | None = None, *, url: str = NOWHERE, **more: Any) -> PathSettings:
    """Settings with one model, `big`, on another server."""
    models = {"big": {"url": url, "model": "big", "price": {"input_per_million": "1", "output_per_million": "2"}}}
    return build_settings({"models": models, "tasks": dict(tasks or {}), **more}, source="the test")


def parts_of(settings: PathSettings, *, embedder: Embedder | None = None, prompts: PromptStore | None = None) -> Parts:
    """Parts with real upstreams and no ledger."""
    targets = {name: Upstream(name, settings.model(name), key=None) for name in settings.models}
    return Parts(settings=settings, targets=targets, prices=PriceTable({}), prompts=prompts, embedder=embedder, ledger=None, closing=[])


def passage_of(
    settings: PathSettings,
    body: Mapping[str, Any] | str,
    *,
    task: str = "default",
    headers: Mapping[str, str] | None = None,
    tenant: Tenant = EVERYBODY,
    id: str = "chatcmpl-test",
) -> Passage:
    """A passage that `intake` has not seen yet. Args: body: the request's JSON, or the user's only words. Needs a running loop."""
    fields = {"messages": [{"role": "user", "content": body}]} if isinstance(body, str) else dict(body)
    request = REQUEST.decode(msgspec.json.encode({"model": "auto"} | fields))
    known = settings.task(task)
    return Passage(
        id=id,
        at=datetime.now(UTC),
        began=time.perf_counter(),
        tenant=tenant,
        user="",
        asked=request,
        request=request,
        headers=dict(headers or {}),
        task=known,
        deadline=asyncio.get_running_loop().time() + known.seconds,
    )


async def close(parts: Parts) -> None:
    """Ends what the stages started, and the connections."""
    for ends in reversed(parts.closing):
        await ends()
    for target in parts.targets.values():
        if isinstance(target, Upstream):
            await target.close()


@contextmanager
def served(app: Any) -> Iterator[str]:
    """An application on a free port, in a thread of its own, until the block ends; gives its URL."""
    listens = threading.Event()
    urls: list[str] = []
    stops: list[Any] = []

    def ready(url: str) -> None:
        urls.append(url)
        listens.set()

    async def main() -> None:
        stop, loop = Stop(), asyncio.get_running_loop()
        stops.append(lambda: loop.call_soon_threadsafe(stop))
        await serve(app, host="127.0.0.1", port=0, drain_seconds=3, ready=ready, stop=stop)

    thread = threading.Thread(target=lambda: asyncio.run(main()), name="served-path")
    thread.start()
    try:
        assert listens.wait(PATIENCE)
        yield urls[0]
    finally:
        stops[0]()
        thread.join(PATIENCE)
        assert not thread.is_alive()
