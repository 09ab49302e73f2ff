"""A server for as long as a `with` lasts, on a free port of this machine."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from foreword.errors import ServingError

if TYPE_CHECKING:
    from foreword.engine import Serves
    from foreword.prefix.store import PrefixStore

DRAIN_SECONDS, START_SECONDS = 10.0, 60.0


@contextmanager
def served(engine: Serves, *, base: str, store: PrefixStore) -> Iterator[str]:
    """The server's URL; it stops, and the engine closes, when the block ends.

    Raises:
        ServingError: it did not start.
    """
    from foreword.gateway.app import build
    from foreword.gateway.server import Stop, serve

    listening = threading.Event()
    urls: list[str] = []
    stops: list[tuple[asyncio.AbstractEventLoop, Stop]] = []

    def ready(url: str) -> None:
        urls.append(url)
        listening.set()

    async def main() -> None:
        stops.append((asyncio.get_running_loop(), Stop()))
        app = build(engine, base=base, store=store)
        await serve(app, host="127.0.0.1", port=0, drain_seconds=DRAIN_SECONDS, ready=ready, stop=stops[0][1])

    def run() -> None:
        try:
            asyncio.run(main())
        finally:
            listening.set()

    thread = threading.Thread(target=run, name="foreword-server")
    thread.start()
    try:
        listening.wait(START_SECONDS)
        if not urls:
            raise ServingError("The server did not start; its log says why.")
        yield urls[0]
    finally:
        for loop, stop in stops:
            if not loop.is_closed():
                loop.call_soon_threadsafe(stop)
        thread.join()
        engine.close()
