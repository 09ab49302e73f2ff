"""`limit`: counts the request against what its user and its tenant may send, and refuses it (429) where that is used up."""

from __future__ import annotations

from foreword.gateway.limits import limits_of
from foreword.gateway.passage import Passage
from foreword.gateway.stage import Next, Parts, Stage


def make(parts: Parts) -> Stage:
    """The stage. Raises `ConfigError`."""
    limits = limits_of(parts.settings.limits, parts.settings.store.redis)
    if limits is not None:
        parts.closing.append(limits.windows.close)

    async def limit(passage: Passage) -> Next:
        if limits is not None:
            await limits.count(passage)
        return Next.ON

    return limit
