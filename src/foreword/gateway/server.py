"""Listens: one Granian worker in this process, stopped in good order.

At SIGTERM or SIGINT the server turns unready, answers new work with 503, lets requests under way end for as long as it may, then closes the
engine, which cancels what is left. A second signal stops at once.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import resource
import signal
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

from starlette.types import Receive, Scope, Send

from foreword.gateway.service import Traffic
from foreword.listening import STOP_SECONDS, listen

MOST_CONNECTIONS = 16_384
"""Connections answered at once; what the engine cannot take on is refused by it, and not kept waiting for a connection."""

logger = logging.getLogger(__name__)


class Served(Protocol):
    """What an application's `state.service` must be, for it to be stopped in good order."""

    @property
    def traffic(self) -> Traffic:
        """Counts what is under way."""
        ...

    async def cut_short(self) -> None:
        """Ends what is under way."""
        ...

    async def close(self) -> None:
        """Ends everything else, once every answer is sent."""
        ...


@runtime_checkable
class Begins(Protocol):
    """A service that has something to do besides answering."""

    async def begin(self) -> None:
        """Called once, in the server's event loop, when the server listens."""
        ...


class Application(Protocol):
    """An ASGI application with a `state` that holds its `service`."""

    state: Any

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        ...


class Stop:
    """Asks a server to stop: once in good order, twice at once."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.hurried = asyncio.Event()

    def __call__(self) -> None:
        (self.hurried if self.asked.is_set() else self.asked).set()


def run(app: Application, *, host: str, port: int, drain_seconds: float, ready: Callable[[str], None]) -> None:
    """Serves until a signal comes; for a program's main thread.

    Args:
        port: 0 takes a free one.
        drain_seconds: how long requests under way may take once a signal has come.
        ready: told the server's URL once it listens.

    Raises:
        ConfigError: the address cannot be listened on.
    """

    async def main() -> None:
        stop, loop = Stop(), asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop)
        await serve(app, host=host, port=port, drain_seconds=drain_seconds, ready=ready, stop=stop)

    _allow_many_connections()
    # What is loaded by now stays; collections that walk over all of it would take a twentieth of what requests take.
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)
    asyncio.run(main())


async def serve(app: Application, *, host: str, port: int, drain_seconds: float, ready: Callable[[str], None], stop: Stop) -> None:
    """Serves until `stop` is asked; as `run` otherwise, in any thread's event loop."""
    service: Served = app.state.service
    server = await listen(app, host=host, port=port, most_connections=MOST_CONNECTIONS)
    if isinstance(service, Begins):
        await service.begin()
    ready(server.url)
    await server.wait(stop.asked)
    await _drain(service, stop, 0.0 if server.ended else drain_seconds)
    await server.close()


async def _drain(service: Served, stop: Stop, seconds: float) -> None:
    service.traffic.draining = True
    logger.info("stopping; %d requests are under way", service.traffic.in_flight)
    idle, hurried = asyncio.create_task(service.traffic.idle()), asyncio.create_task(stop.hurried.wait())
    await asyncio.wait({idle, hurried}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    hurried.cancel()
    if not idle.done():
        logger.warning("%d requests are cut short", service.traffic.in_flight)
    await service.cut_short()
    # Every answer has ended; what is left is to send them.
    await asyncio.wait({idle}, timeout=STOP_SECONDS)
    idle.cancel()
    await service.close()


def _allow_many_connections() -> None:
    """Each connection takes a file descriptor, of which a process may have few unless it asks for more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * MOST_CONNECTIONS if hard == resource.RLIM_INFINITY else min(2 * MOST_CONNECTIONS, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
