"""The one bridge between the engine, which computes in its own threads, and the event loop, which must never wait for it.

Requests go over through one thread (the desk), because taking one on may read a file and renders a prompt. Pieces come back through
`call_soon_threadsafe`. When a client leaves, its tickets are cancelled, and the engine has the slots back within one step.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import TypeVar

from starlette.types import Receive

from foreword.engine import Deliver, Request, Serves, Ticket
from foreword.errors import WindowError
from foreword.gateway.errors import ClientGone
from foreword.types import Delta

Result = TypeVar("Result")


class Bridge:
    """Takes requests to one engine."""

    def __init__(self, engine: Serves) -> None:
        self._engine = engine
        self._desk = ThreadPoolExecutor(max_workers=1, thread_name_prefix="foreword-desk")

    async def open(self, requests: Sequence[Request], receive: Receive | None, *, streamed: bool, shorten: bool = False) -> Pieces:
        """Takes requests on, all or none of them. The caller closes what comes back.

        Args:
            receive: the client's side of the connection, watched for its end; None where somebody else watches it.
            streamed: pieces are wanted as they come, and not only at the end.
            shorten: answers may be as long as is asked for, or as the window leaves behind the prompt of each.

        Raises:
            What `Serves.submit` raises.
        """
        pieces = Pieces(count=len(requests), streamed=streamed)
        desk = self._desk.submit(_submit_all, self._engine, requests, pieces.delivers, shorten=shorten)
        try:
            tickets = await asyncio.wrap_future(desk)
        except asyncio.CancelledError:
            desk.add_done_callback(_cancel_submitted)
            raise
        pieces.start(tickets, receive)
        return pieces

    async def call(self, work: Callable[[], Result]) -> Result:
        """Runs something else that concerns the engine, in the same thread as requests are taken on."""
        return await asyncio.wrap_future(self._desk.submit(work))

    def close(self) -> None:
        """Ends the thread once it has nothing left to do."""
        self._desk.shutdown(wait=False)


class Pieces:
    """The answers to requests that were taken on together, as they are made.

    Attributes:
        first_at: when the first token came (`time.perf_counter`), None before.
    """

    def __init__(self, *, count: int, streamed: bool) -> None:
        self._loop = asyncio.get_running_loop()
        self._streamed = streamed
        self._arrived: deque[tuple[int, Delta]] = deque()
        self._news = asyncio.Event()
        self._unfinished = count
        self._tickets: Sequence[Ticket] = ()
        self._watcher: asyncio.Task[None] | None = None
        self._gone = False
        self.first_at: float | None = None
        self.delivers = tuple(self._deliver(index) for index in range(count))

    def start(self, tickets: Sequence[Ticket], receive: Receive | None) -> None:
        """Begins to watch the client, where there is one to watch."""
        self._tickets = tickets
        if receive is not None:
            self._watcher = asyncio.create_task(self._watch(receive))

    async def next(self) -> list[tuple[int, Delta]]:
        """Pieces that have come since the last call, each with the number of its request; empty once all are finished.

        Raises:
            ClientGone: the client has left; its requests are cancelled.
        """
        while self._unfinished and not self._arrived and not self._gone:
            await self._news.wait()
            self._news.clear()
        if self._gone:
            raise ClientGone
        some = [self._arrived.popleft() for _ in range(len(self._arrived))]
        self._unfinished -= sum(delta.finish_reason is not None for _, delta in some)
        return some

    def close(self) -> None:
        """Stops watching, and gives up what is not finished."""
        if self._watcher is not None:
            self._watcher.cancel()
        if self._unfinished:
            for ticket in self._tickets:
                ticket.cancel()

    def _deliver(self, index: int) -> Deliver:
        def deliver(delta: Delta) -> None:
            if self.first_at is None and (delta.token_ids or delta.text):
                self.first_at = time.perf_counter()
            self._arrived.append((index, delta))
            if self._streamed or delta.finish_reason is not None:
                try:
                    self._loop.call_soon_threadsafe(self._news.set)
                except RuntimeError:
                    # The loop was closed: the server has ended, and nobody waits for this piece.
                    self._arrived.clear()

        return deliver

    async def _watch(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self._gone = True
        for ticket in self._tickets:
            ticket.cancel()
        self._news.set()


def _submit_all(engine: Serves, requests: Sequence[Request], delivers: Sequence[Deliver], *, shorten: bool) -> list[Ticket]:
    tickets: list[Ticket] = []
    try:
        for request, deliver in zip(requests, delivers, strict=True):
            tickets.append(_submit_shortened(engine, request, deliver) if shorten else engine.submit(request, deliver))
    except BaseException:
        for ticket in tickets:
            ticket.cancel()
        raise
    return tickets


def _submit_shortened(engine: Serves, request: Request, deliver: Deliver) -> Ticket:
    while True:
        wanted = request.sampling.max_new_tokens
        try:
            return engine.submit(request, deliver)
        except WindowError as error:
            # An engine that does not tell the room is asked for half as much, again and again.
            room = wanted // 2 if error.room is None else error.room
            if not 0 < room < wanted:
                raise
            request = replace(request, sampling=replace(request.sampling, max_new_tokens=room))


def _cancel_submitted(desk: Future[list[Ticket]]) -> None:
    """For requests whose client's task ended while they were being taken on."""
    if not desk.cancelled() and desk.exception() is None:
        for ticket in desk.result():
            ticket.cancel()
