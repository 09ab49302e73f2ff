"""Listens on an address: one Granian worker in this process, for what serves models and what serves agents. Needs the extra `serve`.

server = await listen(application, host="127.0.0.1", port=0)
await server.wait(stop)
await server.close()
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from typing import Any

from granian.constants import Interfaces
from granian.log import LogLevels
from granian.server.embed import Server

from foreword.errors import ConfigError, ServingError

BACKLOG = 2048
START_SECONDS, STOP_SECONDS = 30.0, 5.0
_NO_LOGGING_SETUP = {"incremental": True, "formatters": {}, "handlers": {}, "loggers": {}}
"""Keeps Granian from putting up log handlers of its own."""


class Listening:
    """A server that accepts connections. Attributes: url: where."""

    def __init__(self, server: Server, serving: asyncio.Task[None], *, host: str, port: int) -> None:
        self.url = f"http://{f'[{host}]' if ':' in host else host}:{port}"
        self._server, self._serving, self._place = server, serving, f"{host} port {port}"

    @property
    def ended(self) -> bool:
        """Whether it ended, asked to or not."""
        return self._serving.done()

    async def wait(self, stop: asyncio.Event) -> None:
        """Returns when `stop` is set, or when the server has ended by itself."""
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait({self._serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()

    async def close(self) -> None:
        """Accepts no more and closes its connections. Raises `ServingError` where it had ended by itself."""
        if self.ended:
            raise ServingError(f"The server on {self._place} ended by itself. Its log says why; start it again.")
        self._server.stop()
        with contextlib.suppress(TimeoutError):
            # A client that reads nothing may keep its connection for ever.
            await asyncio.wait_for(self._serving, STOP_SECONDS)


async def listen(application: Any, *, host: str, port: int, most_connections: int | None = None) -> Listening:
    """Begins to serve an ASGI application; returns once it accepts connections.

    Args:
        port: 0 takes a free one.
        most_connections: answered at once; further ones wait.

    Raises:
        ConfigError: the address cannot be listened on.
        ServingError: the server ended before it listened.
    """
    with _reserved(host, port) as free_port:
        server = Server(
            application,
            address=host,
            port=free_port,
            interface=Interfaces.ASGINL,
            websockets=False,
            backlog=BACKLOG,
            backpressure=most_connections,
            log_level=LogLevels.error,
            log_dictconfig=_NO_LOGGING_SETUP,
        )
        serving = asyncio.create_task(server.serve())
        await _accepting(host, free_port, serving)
    return Listening(server, serving, host=host, port=free_port)


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


async def _accepting(host: str, port: int, serving: asyncio.Task[None]) -> None:
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
