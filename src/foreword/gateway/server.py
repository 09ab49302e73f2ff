"""Listens: one Granian worker in this process, stopped in good order.

At SIGTERM or SIGINT the server turns unready, answers new work with 503, lets requests under way end for as long as it may, then closes the
engine, which cancels what is left. A second signal stops at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import resource
import signal
import socket
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from granian.constants import Interfaces
from granian.log import LogLevels
from granian.server.embed import Server
from starlette.types import Receive, Scope, Send

from foreword.errors import ConfigError, ServingError
from foreword.gateway.service import Traffic

BACKLOG = 2048
MOST_CONNECTIONS = 16_384
"""Connections answered at once; what the engine cannot take on is refused by it, and not kept waiting for a connection."""
START_SECONDS, STOP_SECONDS = 30.0, 5.0
_NO_LOGGING_SETUP = {"incremental": True, "formatters": {}, "handlers": {}, "loggers": {}}
"""Keeps Granian from putting up log handlers of its own."""

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
    asyncio.run(main())


async def serve(app: Application, *, host: str, port: int, drain_seconds: float, ready: Callable[[str], None], stop: Stop) -> None:
    """Serves until `stop` is asked; as `run` otherwise, in any thread's event loop."""
    service: Served = app.state.service
    with _reserved(host, port) as free_port:
        server = Server(
            app,
            address=host,
            port=free_port,
            interface=Interfaces.ASGINL,
            websockets=False,
            backlog=BACKLOG,
            backpressure=MOST_CONNECTIONS,
            log_level=LogLevels.error,
            log_dictconfig=_NO_LOGGING_SETUP,
        )
        serving = asyncio.create_task(server.serve())
        await _listening(host, free_port, serving)
    shown = f"[{host}]" if ":" in host else host
    ready(f"http://{shown}:{free_port}")
    stopping = asyncio.create_task(stop.asked.wait())
    await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    failed = serving.done()
    await _drain(service, stop, 0.0 if failed else drain_seconds)
    if failed:
        raise ServingError(f"The server on {host} port {free_port} ended by itself. Its log says why; start it again.")
    server.stop()
    with contextlib.suppress(TimeoutError):
        # A client that reads nothing may keep its connection for ever.
        await asyncio.wait_for(serving, STOP_SECONDS)


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


@contextlib.contextmanager
def _reserved(host: str, port: int) -> Iterator[int]:
    """Holds an address that nobody else listens on, until Granian does.

    Granian shares its port with whoever allows it, so an address in use would go unnoticed.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
        held = socket.socket(family)
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        held.bind((host, port))
    except OSError as error:
        reason = error.strerror or error
        raise ConfigError(
            f"Cannot listen on {host} port {port}: {reason}. Choose another with `--host` and `--port` (0 takes a free one)."
        ) from None
    with held:
        yield held.getsockname()[1]


async def _listening(host: str, port: int, serving: asyncio.Task[None]) -> None:
    """Returns once a connection is accepted."""
    near = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    async with asyncio.timeout(START_SECONDS):
        while True:
            if serving.done():
                raise ServingError(f"The server on {host} port {port} ended before it listened. Its log says why.")
            try:
                _, writer = await asyncio.open_connection(near, port)
            except OSError:
                await asyncio.sleep(0.01)
                continue
            writer.close()
            return


def _allow_many_connections() -> None:
    """Each connection takes a file descriptor, of which a process may have few unless it asks for more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * MOST_CONNECTIONS if hard == resource.RLIM_INFINITY else min(2 * MOST_CONNECTIONS, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
