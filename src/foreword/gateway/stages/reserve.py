"""`reserve`: sets aside what the call may cost in every budget that holds; where one is spent, the request waits, and is then refused."""

from __future__ import annotations

from foreword.gateway.passage import Passage
from foreword.gateway.stage import Next, Parts, Stage


def make(parts: Parts) -> Stage:
    """The stage."""

    async def reserve(passage: Passage) -> Next:
        if passage.hold is not None:
            await passage.hold.reserve()
        return Next.ON

    return reserve
