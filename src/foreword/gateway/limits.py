"""How many requests a user and a tenant may send, by the package `limits`: in this process, or in Redis for several servers together.

Windows are fixed: `60/minute` counts from the first request on, and starts anew a minute later. A user's limit is looked at first, so that
one who sends too much uses up nothing of the tenant's. Where Redis does not answer, each server counts for itself, and says so in its log.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from foreword.errors import ConfigError
from foreword.gateway.errors import BUSY, Refusal
from foreword.gateway.passage import Passage
from foreword.gateway.path_settings import PathSettings

if TYPE_CHECKING:
    from limits import RateLimitItem
    from limits.aio.strategies import RateLimiter

SWEEP_EVERY = 10_000
"""Requests after which windows that are over are forgotten."""
FAILED_SECONDS = 5.0
"""How long Redis is not asked again once it has failed."""
TIMEOUT_SECONDS = 1.0

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One limit. Attributes: whose: `user` or `tenant`; item: how many in how long."""

    whose: str
    item: RateLimitItem


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """What a request found. Attributes: left: further ones that the window has room for; resets: seconds until it starts anew."""

    rule: Rule
    allowed: bool
    left: int
    resets: float


class Windows:
    """Counts by key and window, in this process: what `limits` asks of a storage with fixed windows.

    The package's own storage walks through all of its keys with every request, which costs more than the rest of the path once there are
    some thousand users.
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._counts: dict[str, tuple[int, float]] = {}
        self._hits = 0

    def __len__(self) -> int:
        """Windows kept."""
        return len(self._counts)

    def hit(self, key: str, seconds: float) -> tuple[int, float]:
        """Counts one more; gives the count so far and when the window ends."""
        now = self._clock()
        self._hits += 1
        if self._hits % SWEEP_EVERY == 0:
            self._counts = {kept: one for kept, one in self._counts.items() if one[1] > now}
        count, ends = self._counts.get(key, (0, 0.0))
        if ends <= now:
            count, ends = 0, now + seconds
        self._counts[key] = (count + 1, ends)
        return count + 1, ends
