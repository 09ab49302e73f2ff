"""Listens for other agents: one Granian worker in this process, until it is asked to stop. Needs the extra `serve`."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from collections.abc import Callable, Iterator

from granian.constants import Interfaces
from granian.log import LogLevels
from granian.server.embed import Server
from starlette.applications import Starlette

from foreword.errors import ConfigError, ServingError

START_SECONDS, STOP_SECONDS = 30.0, 5.0
_NO_LOGGING_SETUP = {"incremental": True, "formatters": {}, "handlers": {}, "loggers": {}}
"""Keeps Granian from putting up log handlers of its own."""


async def serve_until_signalled(app: Starlette, *, host: str, port: int, ready: Callable[[str], None]) -> None:
    """Serves until SIGTERM or SIGINT; in a program's main thread. Raises as `serve`."""
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await serve(app, host=host, port=port, ready=ready, stop=stop)


async def serve(app: Starlette, *, host: str, port: int, ready: Callable[[str], None], stop: asyncio.Event) -> None:
    """Serves until `stop` is set; tasks under way are then cancelled.

    Args:
        port: 0 takes a free one.
        ready: told the server's URL once it listens.

    Raises:
        ConfigError: the address cannot be listened on.
        ServingError: the server ended by itself.
    """
    with _reserved(host, port) as free_port:
        server = Server(
            app,
            address=host,
            port=free_port,
            interface=Interfaces.ASGINL,
            websockets=False,
            log_level=LogLevels.error,
            log_dictconfig=_NO_LOGGING_SETUP,
        )
        serving = asyncio.create_task(server.serve())
        await _listening(host, free_port, serving)
    ready(f"http://{f'[{host}]' if ':' in host else host}:{free_port}")
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    await app.state.service.close()
    if serving.done():
        raise ServingError(f"The server on {host} port {free_port} ended by itself. Its log says why; start it again.")
    server.stop()
    with contextlib.suppress(TimeoutError):
        # A client that reads nothing may keep its connection for ever.
        await asyncio.wait_for(serving, STOP_SECONDS)


@contextlib.contextmanager
def _reserved(host: str, port: int) -> Iterator[int]:
    """Holds an address that nobody else listens on, until Granian does: it shares its port with whoever allows it."""
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
