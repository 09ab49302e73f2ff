"""`guard-in`: where filters of what comes in have their place. There are none yet, and every request goes on."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from foreword.gateway.passage import Passage
from foreword.gateway.stage import Next, Parts, Stage

Guard = Callable[[Passage], Awaitable[None]]
"""Looks at a passage; replaces its request, or raises `Refusal`."""


def make(parts: Parts, *, guards: tuple[Guard, ...] = ()) -> Stage:
    """Args: guards: asked one after the other."""

    async def guard_in(passage: Passage) -> Next:
        for guard in guards:
            await guard(passage)
        return Next.ON

    return guard_in
