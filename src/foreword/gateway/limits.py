"""How many requests a user and a tenant may send, by the package `limits`: in this process, or in Redis for several servers together.

Windows are fixed: `60/minute` counts from the first request on, and starts anew a minute later. A user's limit is looked at first, so that
one who sends too much uses up nothing of the tenant's. Where Redis does not answer, each server counts for itself, and says so in its log.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import quote

from foreword.errors import ConfigError
from foreword.gateway.errors import BUSY, Refusal
from foreword.gateway.passage import Passage
from foreword.gateway.path_settings import LimitSettings

if TYPE_CHECKING:
    from limits import RateLimitItem

SWEEP_EVERY = 10_000
"""Requests after which windows that are over are forgotten."""
FAILED_SECONDS = 5.0
"""How long Redis is not asked again once it has failed."""
TIMEOUT_SECONDS = 1.0

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """What a request found.

    Attributes:
        whose: `user` or `tenant`.
        left: requests that the window has room for after this one; below 0 where it had none for this one.
        resets: seconds until the window starts anew.
    """

    whose: str
    item: RateLimitItem
    left: int
    resets: float

    @property
    def most(self) -> int:
        """Requests that a window has room for."""
        return self.item.amount


class Windows(Protocol):
    """Counts of what came, by key and window."""

    async def hit(self, key: str, seconds: int) -> tuple[int, float]:
        """Counts one more; gives the count so far, and in how many seconds the window is over."""
        ...

    async def close(self) -> None:
        """Ends what it holds open."""
        ...


class MemoryWindows:
    """Counts in this process. Meets `Windows`.

    The package's own storage walks through all of its keys with every request, which costs more than the rest of the path once there are
    some thousand users.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._counts: dict[str, tuple[int, float]] = {}
        self._hits = 0

    def __len__(self) -> int:
        """Windows kept."""
        return len(self._counts)

    async def hit(self, key: str, seconds: int) -> tuple[int, float]:
        """See `Windows`."""
        now = self._clock()
        self._hits += 1
        if self._hits % SWEEP_EVERY == 0:
            self._counts = {kept: one for kept, one in self._counts.items() if one[1] > now}
        count, ends = self._counts.get(key, (0, 0.0))
        if ends <= now:
            count, ends = 0, now + seconds
        self._counts[key] = (count + 1, ends)
        return count + 1, ends - now

    async def close(self) -> None:
        """See `Windows`."""


class RedisWindows:
    """Counts in Redis; while it does not answer, in this process. Meets `Windows`. For one event loop."""

    def __init__(self, url: str) -> None:
        """Raises `ConfigError`."""
        try:
            import redis
            from limits.aio.storage import RedisStorage
            from limits.errors import ConfigurationError, StorageError
        except ModuleNotFoundError as error:
            raise _missing(error) from error
        self._failures = (StorageError, redis.RedisError, OSError, TimeoutError)
        try:
            self._storage = RedisStorage(
                f"async+{url}" if not url.startswith("unix:") else f"async+redis+{url}",
                wrap_exceptions=True,
                implementation="redispy",
                key_prefix="foreword:limits",
                socket_timeout=TIMEOUT_SECONDS,
                socket_connect_timeout=TIMEOUT_SECONDS,
            )
        except (ConfigurationError, ValueError):
            # The package's words hold the URL, and that may hold a password.
            raise ConfigError("`store.redis` is no URL of a Redis. Give one like `redis://host:6379/0`.") from None
        self._here = MemoryWindows()
        self._asked_again_at = 0.0

    async def hit(self, key: str, seconds: int) -> tuple[int, float]:
        """See `Windows`."""
        if time.monotonic() < self._asked_again_at:
            return await self._here.hit(key, seconds)
        try:
            count = await self._storage.incr(key, seconds)
            ends = await self._storage.get_expiry(key)
        except self._failures as error:
            self._asked_again_at = time.monotonic() + FAILED_SECONDS
            logger.warning("limits are counted by this server alone for now: Redis does not answer (%s)", type(error).__name__)
            return await self._here.hit(key, seconds)
        return count, max(0.0, ends - time.time())

    async def close(self) -> None:
        """See `Windows`."""
        bridge: Any = self._storage.bridge
        await bridge.get_connection().aclose()


class Limits:
    """The limits of a server."""

    def __init__(self, settings: LimitSettings, windows: Windows) -> None:
        """Raises `ConfigError` where a limit cannot be read."""
        self._rules = [
            (whose, item)
            for whose, given in (("user", settings.per_user), ("tenant", settings.per_tenant))
            if given is not None
            for item in _items(whose, given)
        ]
        self.windows = windows

    async def count(self, passage: Passage) -> None:
        """Counts a request, and tells its client how many more there may be. Raises `Refusal` (429)."""
        found: list[Counted] = []
        for whose, item in self._rules:
            names = (passage.tenant.name, passage.user) if whose == "user" else (passage.tenant.name,)
            # Quoted, so that no name can be read as two.
            key = item.key_for(whose, *(quote(name, safe="") for name in names))
            count, resets = await self.windows.hit(key, item.get_expiry())
            found.append(Counted(whose=whose, item=item, left=item.amount - count, resets=resets))
            if found[-1].left < 0:
                passage.told.update(_headers(found[-1:]))
                raise _refusal(found[-1])
        passage.told.update(_headers(found))


def limits_of(settings: LimitSettings, redis: str | None) -> Limits | None:
    """The limits of the settings; None where there are none. Raises `ConfigError`."""
    if settings == LimitSettings():
        return None
    return Limits(settings, MemoryWindows() if redis is None else RedisWindows(redis))


def _items(whose: str, given: str) -> list[RateLimitItem]:
    try:
        from limits import parse_many
    except ModuleNotFoundError as error:
        raise _missing(error) from error
    try:
        # The shortest first: what it refuses uses up nothing of the longer ones.
        items = sorted(parse_many(given), key=lambda item: item.get_expiry())
        if any(item.amount < 1 for item in items):
            raise ValueError("a limit of none")
        return items
    except ValueError:
        raise ConfigError(f"`limits.per_{whose}` is written like `60/minute` or `5/second;1000/day`; got {given!r}.") from None


def _headers(found: Sequence[Counted]) -> dict[str, str]:
    """As OpenAI names them, of the limit that is nearest."""
    nearest = min(found, key=lambda one: one.left)
    return {
        "x-ratelimit-limit-requests": str(nearest.most),
        "x-ratelimit-remaining-requests": str(max(0, nearest.left)),
        "x-ratelimit-reset-requests": spoken(nearest.resets),
    }


def spoken(seconds: float) -> str:
    """A time as OpenAI writes it: `120ms`, `1s`, `6m0s`, `1h0m0s`."""
    if seconds < 1:
        return f"{math.ceil(seconds * 1000)}ms"
    minutes, rest = divmod(math.ceil(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h{minutes}m{rest}s"
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"


def _refusal(counted: Counted) -> Refusal:
    every = f"{counted.most} requests in {spoken(counted.item.get_expiry())}"
    words = f"This {counted.whose} may send {every}, and has sent them. Send the request again in {spoken(counted.resets)}."
    return Refusal(429, words, kind=BUSY, code="rate_limit_exceeded", headers={"retry-after": str(max(1, math.ceil(counted.resets)))})


def _missing(error: ModuleNotFoundError) -> ConfigError:
    extra = "shared" if error.name == "redis" else "serve"
    return ConfigError(f"Limits need the package `{error.name}`, which is not installed. Install it: pip install 'foreword[{extra}]'.")
