"""Server-sent events: one JSON chunk per event, `[DONE]` at the end, an error as an event of its own."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Protocol

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from foreword.gateway.errors import ClientGone, Refusal

DONE = b"data: [DONE]\n\n"
KEEP_ALIVE = b""
"""In the place of a chunk: a comment, which clients leave out, so that nobody on the way takes the connection for dead."""

logger = logging.getLogger(__name__)


class Events(Protocol):
    """Where the chunks come from."""

    def opening(self) -> list[bytes]:
        """Chunks that are sent at once."""
        ...

    async def next(self) -> list[bytes]:
        """Chunks as they come. Raises `Refusal` where the answer ends before its end."""
        ...

    def done(self) -> bool:
        """Whether nothing more will come."""
        ...

    def ending(self) -> list[bytes]:
        """Chunks after the last piece."""
        ...

    def close(self) -> None:
        """Gives up what is not finished."""
        ...


class EventStream(Response):
    """An answer that is sent while it is made."""

    media_type = "text/event-stream"

    def __init__(self, events: Events, *, headers: Mapping[str, str]) -> None:
        self.status_code = 200
        self.background = None
        # Proxies would hold the pieces back.
        self.init_headers({"cache-control": "no-cache", "x-accel-buffering": "no", **headers})
        self._events = events

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        events = self._events
        try:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            await _send(send, events.opening())
            while not events.done():
                await _send(send, await events.next())
            await _send(send, events.ending(), end=DONE)
        except ClientGone:
            logger.debug("a client left in the middle of a stream")
        except Refusal as refusal:
            await _send(send, [refusal.body])
        finally:
            events.close()
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _send(send: Send, chunks: Iterable[bytes], *, end: bytes = b"") -> None:
    body = b"".join(b"data: %b\n\n" % chunk if chunk else b": keep-alive\n\n" for chunk in chunks) + end
    if body:
        await send({"type": "http.response.body", "body": body, "more_body": True})
