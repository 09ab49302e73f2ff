"""The path: stages in their order, and how a passage walks along them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from foreword.gateway.errors import Refusal
from foreword.gateway.passage import Passage
from foreword.gateway.stage import Next, Parts, Stage, make

MOST_AGAIN = 1
"""How often a check may send a passage back for another answer."""

logger = logging.getLogger(__name__)


class Path:
    """The stages of one server."""

    def __init__(self, stages: Sequence[tuple[str, Stage]], parts: Parts) -> None:
        """Args: stages: with their names, in order; `infer` and `bill` are among them."""
        self.names = tuple(name for name, _ in stages)
        self._stages = tuple(stage for _, stage in stages)
        self._infer, self._bill = self.names.index("infer"), self.names.index("bill")
        self._parts = parts

    @classmethod
    def of(cls, parts: Parts) -> Path:
        """The path that the settings describe. Raises `RegistryError` where a stage is unknown."""
        return cls([(name, make(name, parts)) for name in parts.settings.stages], parts)

    async def walk(self, passage: Passage) -> None:
        """Takes a passage to its answer: `reply` is set and the passage billed, or `events` is set and `finish` has still to be called.

        Raises:
            Refusal: a stage refuses; `bill` is then still to be called.
        """
        place, again = 0, 0
        while place < len(self._stages):
            step = await self._step(place, passage)
            if step is Next.AGAIN and again < MOST_AGAIN:
                again += 1
                place = self._infer
            elif step is Next.ANSWERED:
                place = self._infer + 1
            else:
                place += 1
            if passage.events is not None:
                return
        await self._settle(passage)

    async def _step(self, place: int, passage: Passage) -> Next:
        try:
            return await self._stages[place](passage)
        except Refusal:
            if place != self._infer or passage.rejected is None:
                raise
            # Another answer was looked for and none came: the one that there is stands.
            passage.take_back(passage.rejected)
            return Next.ON

    async def finish(self, passage: Passage) -> None:
        """The stages behind `infer`, once a streamed answer is complete; `passage.reply` holds it."""
        for stage in self._stages[self._infer + 1 :]:
            # The answer is sent; nothing can be asked for again.
            await stage(passage)
        await self._settle(passage)

    async def bill(self, passage: Passage) -> None:
        """Bills a passage that a refusal, a failure or its client ended before its time."""
        await self._stages[self._bill](passage)
        await self._settle(passage)

    async def close(self) -> None:
        """Ends what the stages started."""
        for close in reversed(self._parts.closing):
            await close()

    async def _settle(self, passage: Passage) -> None:
        done = await asyncio.gather(*(after() for after in passage.afterwards), return_exceptions=True)
        for error in done:
            if isinstance(error, BaseException):
                # The answer stands; what could not be done behind it is the log's business.
                logger.warning("something after request %s failed: %s", passage.id, type(error).__name__)
