"""What a request's strategy asks: the served model, over the one bridge to the engine."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace

from foreword.engine import Request
from foreword.errors import ForewordError, Overloaded, PrefixError, ServingError, WindowError
from foreword.gateway.bridge import Bridge
from foreword.gateway.naming import Named
from foreword.gateway.stands_for import Match
from foreword.prompting.model import MOST_WAITS, whole
from foreword.types import Completion, Delta, Message, Sampling, Usage

SHARE = 16
"""Calls that one request has in the engine at once, so that a wide strategy leaves room for others."""

FindStandIns = Callable[[Sequence[Message], Sampling], Awaitable[Sequence[Match]]]
Refuse = Callable[[Match, PrefixError], None]


class StrategyModel:
    """One request's model. Meets `foreword.prompting.model.Model`; for one event loop.

    Attributes:
        calls: that have begun.
        cached_tokens: tokens of prompts that did not have to be read because a prefix stood for them.
        error: the last one that a call ended with.
        taken_on: done once the engine has taken the first call on.
    """

    def __init__(
        self,
        bridge: Bridge,
        named: Named,
        *,
        room: asyncio.Semaphore,
        shorten: bool,
        stand_ins: tuple[FindStandIns, Refuse] | None = None,
    ) -> None:
        """
        Args:
            room: held by each call while it is in the engine; shared by all strategies.
            shorten: answers may be shorter than asked for where the window leaves less room.
            stand_ins: finds prefixes that stand for a call's first messages, and takes those out of use that cannot.
        """
        self._bridge, self._named, self._room, self._shorten, self._stand_ins = bridge, named, room, shorten, stand_ins
        self._share = asyncio.Semaphore(SHARE)
        self._cut_short: set[str] = set()
        self.name = named.model
        self.calls = self.cached_tokens = 0
        self.error: ForewordError | None = None
        self.taken_on: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def answer(self, conversation: Sequence[Message], sampling: Sampling) -> Completion:
        """One answer; see `Model.answer`. Where the engine is too busy it is asked again, for as long as the request's budget lasts."""
        request = Request(conversation=tuple(conversation), prefix=self._named.files, sampling=sampling)
        try:
            async with self._share, self._room:
                self.calls += 1
                completion = await self._patiently(request)
        except (ServingError, WindowError) as error:
            self.error = error
            raise
        if completion.finish_reason == "length":
            self._cut_short.add(completion.text)
        return completion

    async def close(self) -> None:
        """Nothing was started for it."""

    def was_cut_short(self, text: str) -> bool:
        """Whether a text is that of a call which ended at its most tokens."""
        return text in self._cut_short

    async def _patiently(self, request: Request) -> Completion:
        for _ in range(MOST_WAITS - 1):
            try:
                return await self._standing_in(request)
            except Overloaded as error:
                await asyncio.sleep(error.retry_after)
        return await self._standing_in(request)

    async def _standing_in(self, request: Request) -> Completion:
        """From a prefix that stands for the first messages, where there is one: the same answer, with less to read."""
        if self._stand_ins is None or request.prefix:
            return await self._asked(request)
        find, refuse = self._stand_ins
        for match in await find(request.conversation, request.sampling):
            try:
                completion = await self._asked(replace(request, conversation=match.rest, prefix=match.named(self.name).files))
            except PrefixError as error:
                refuse(match, error)
                continue
            usage = completion.usage
            self.cached_tokens += usage.prefix_positions
            read = Usage(prompt_tokens=usage.prompt_tokens + usage.prefix_positions, completion_tokens=usage.completion_tokens)
            return replace(completion, usage=read)
        return await self._asked(request)

    async def _asked(self, request: Request) -> Completion:
        began = time.perf_counter()
        pieces = await self._bridge.open([request], None, streamed=False, shorten=self._shorten)
        deltas: list[Delta] = []
        try:
            if not self.taken_on.done():
                self.taken_on.set_result(None)
            while some := await pieces.next():
                deltas.extend(delta for _, delta in some)
        finally:
            pieces.close()
        return whole(deltas, time.perf_counter() - began, self.name)
