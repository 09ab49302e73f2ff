"""Places for calls that are under way at once; whoever finds none waits, higher priorities first, equal ones in the order they came."""

from __future__ import annotations

import asyncio
import heapq
import itertools


class Slots:
    """For one event loop."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._used = 0
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []
        self._numbers = itertools.count()

    @property
    def used(self) -> int:
        """Calls under way."""
        return self._used

    @property
    def are_free(self) -> bool:
        """Whether a call would find one at once."""
        return self._used < self._most

    def take(self) -> bool:
        """Takes a place where one is free and nobody waits for it."""
        if self._used < self._most and not self._waiting:
            self._used += 1
            return True
        return False

    async def wait(self, *, priority: int, seconds: float) -> None:
        """Takes a place as soon as it is this call's turn. Raises `TimeoutError` after `seconds`."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (-priority, next(self._numbers), turn))
        try:
            async with asyncio.timeout(seconds):
                await turn
        except (TimeoutError, asyncio.CancelledError):
            if turn.done() and not turn.cancelled():
                # The place came in the same moment as the end of the wait.
                self.leave()
            turn.cancel()
            raise

    def leave(self) -> None:
        """Gives a place back, to the next one who waits."""
        while self._waiting:
            _, _, turn = heapq.heappop(self._waiting)
            if not turn.done():
                turn.set_result(None)
                return
        self._used -= 1
