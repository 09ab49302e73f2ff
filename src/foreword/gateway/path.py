"""The path: stages in their order, and how a passage walks along them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence

from foreword.gateway.passage import Passage
from foreword.gateway.stage import Next, Parts, Stage, make

MOST_AGAIN = 1
"""How often a check may send a passage back for another answer."""

FOR_CONVERSATIONS = frozenset({"cache", "assemble", "check"})
"""Stages that read a conversation, or an answer in one."""

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

    def for_texts(self, infer: Stage) -> Path:
        """The same stages for requests that are no conversations, with another `infer`; limits and budgets count both together."""
        pairs = zip(self.names, self._stages, strict=True)
        kept = [(name, infer if name == "infer" else stage) for name, stage in pairs if name not in FOR_CONVERSATIONS]
        return Path(kept, self._parts)

    async def walk(self, passage: Passage) -> None:
        """Takes a passage to its answer: `reply` is set and the passage billed, or `events` is set and `finish` has still to be called.

        Raises:
            Refusal: a stage refuses; `bill` is then still to be called.
        """
        place, again = 0, 0
        while place < len(self._stages):
            step = await self._stages[place](passage)
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
        """What is done once a request has its answer, each thing once: a client that leaves meanwhile does not undo it."""
        if passage.afterwards:
            after, passage.afterwards = passage.afterwards, []
            await asyncio.shield(asyncio.ensure_future(_done(passage.id, after)))


async def _done(request: str, afterwards: Sequence[Callable[[], Awaitable[None]]]) -> None:
    for after in afterwards:
        try:
            await after()
        except Exception as error:
            # The answer stands; what could not be done behind it is the log's business.
            logger.warning("something after request %s failed: %s", request, type(error).__name__)
