"""Listens for other agents, until it is asked to stop. Needs the extra `serve`."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable

from starlette.applications import Starlette

from foreword.listening import listen


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
    server = await listen(app, host=host, port=port)
    ready(server.url)
    await server.wait(stop)
    await app.state.service.close()
    await server.close()
