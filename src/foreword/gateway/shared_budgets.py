"""Accounts of budgets in Redis, shared by all servers that name it. Each step is one script, which Redis runs as a whole.

A pot is a hash (`spent`, `reserved`, and what each hold has set aside) with a sorted set of when each hold's time is over; both are
forgotten some days after the period's end. The scripts add whole numbers as Redis does, exactly, and compare them as Lua does, which is
exact up to 2⁵³ units (9,007 of the currency) and to one part in 10¹⁵ beyond.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Mapping, Sequence
from typing import Any

from foreword.errors import ConfigError, StoreError
from foreword.gateway.budget_book import Lack, Pot, Standing

PREFIX = "foreword:{budgets}:"
"""The braces keep all pots on one node of a cluster, so that a script may see several."""
KEPT_SECONDS = 3 * 86_400
"""After a pot's period."""
POLL_SECONDS = 0.05
RETRY_SECONDS = (0.05, 0.2, 1.0)
TIMEOUT_SECONDS = 2.0

_RESERVE = """
local pots, hold, units, life = #KEYS / 2, ARGV[1], ARGV[2], tonumber(ARGV[3])
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local lacking, outstanding = 0, 0
for number = 1, pots do
  local pot, ends = KEYS[number], KEYS[pots + number]
  local limit, opening, until_when = ARGV[1 + 3 * number], ARGV[2 + 3 * number], ARGV[3 + 3 * number]
  redis.call('HSETNX', pot, 'spent', opening)
  for _, gone in ipairs(redis.call('ZRANGEBYSCORE', ends, '-inf', now)) do
    local held = redis.call('HGET', pot, 'hold:' .. gone)
    if held then
      redis.call('HINCRBY', pot, 'reserved', '-' .. held)
      redis.call('HDEL', pot, 'hold:' .. gone)
    end
    redis.call('ZREM', ends, gone)
  end
  local spent = tonumber(redis.call('HGET', pot, 'spent'))
  local reserved = tonumber(redis.call('HGET', pot, 'reserved') or '0')
  if lacking == 0 and spent + reserved + tonumber(units) > tonumber(limit) then
    lacking = number
    if reserved > 0 then outstanding = 1 end
  end
  redis.call('EXPIREAT', pot, until_when)
end
if lacking > 0 then return {lacking, outstanding} end
for number = 1, pots do
  local pot, ends = KEYS[number], KEYS[pots + number]
  redis.call('HINCRBY', pot, 'reserved', units)
  redis.call('HINCRBY', pot, 'hold:' .. hold, units)
  redis.call('ZADD', ends, now + life, hold)
  redis.call('EXPIREAT', ends, ARGV[3 + 3 * number])
  redis.call('EXPIREAT', pot, ARGV[3 + 3 * number])
end
return {0, 0}
"""
_SETTLE = """
local pots, hold, units = #KEYS / 2, ARGV[1], ARGV[2]
for number = 1, pots do
  local pot, ends = KEYS[number], KEYS[pots + number]
  redis.call('HSETNX', pot, 'spent', ARGV[1 + 2 * number])
  local held = redis.call('HGET', pot, 'hold:' .. hold)
  if held then
    redis.call('HINCRBY', pot, 'reserved', '-' .. held)
    redis.call('HDEL', pot, 'hold:' .. hold)
  end
  redis.call('ZREM', ends, hold)
  redis.call('HINCRBY', pot, 'spent', units)
  redis.call('EXPIREAT', pot, ARGV[2 + 2 * number])
end
return 0
"""

logger = logging.getLogger(__name__)


class RedisBook:
    """Accounts in Redis. Meets `Book`. For one event loop."""

    def __init__(self, url: str, openings: Mapping[str, int] | None = None) -> None:
        """Args: openings: what is spent already, by the pots' keys; it counts for a pot that Redis does not have. Raises `ConfigError`."""
        try:
            import redis
            import redis.asyncio
        except ModuleNotFoundError as error:
            raise ConfigError("Budgets in Redis need the package `redis`. Install it: pip install 'foreword[shared]'.") from error
        try:
            self._redis = redis.asyncio.Redis.from_url(url, socket_timeout=TIMEOUT_SECONDS, socket_connect_timeout=TIMEOUT_SECONDS)
        except ValueError:
            raise ConfigError("`store.redis` is no URL of a Redis. Give one like `redis://host:6379/0`.") from None
        self._openings = dict(openings or {})
        self._failures = (redis.RedisError, OSError, TimeoutError)
        self._reserve = self._redis.register_script(_RESERVE)
        self._settle = self._redis.register_script(_SETTLE)

    async def reserve(self, pots: Sequence[Pot], hold: str, units: int, seconds: float) -> Lack | None:
        """See `Book`."""
        given: list[Any] = [hold, units, round(seconds * 1000)]
        for pot in pots:
            given += [pot.limit, self._openings.get(pot.key, 0), _until(pot)]
        lacking, outstanding = map(int, await self._run(self._reserve, pots, given))
        return None if lacking == 0 else Lack(number=lacking - 1, outstanding=bool(outstanding))

    async def settle(self, pots: Sequence[Pot], hold: str, units: int) -> None:
        """See `Book`. Tried for some seconds where Redis does not answer; what could not be counted then is the ledger's alone."""
        given: list[Any] = [hold, units]
        for pot in pots:
            given += [self._openings.get(pot.key, 0), _until(pot)]
        for pause in (*RETRY_SECONDS, None):
            try:
                await self._run(self._settle, pots, given)
                return
            except StoreError as error:
                if pause is None:
                    logger.warning("what request %s cost is not in its budgets' accounts: %s", hold, error)
                    raise
                await asyncio.sleep(pause)

    async def standings(self, pots: Sequence[Pot]) -> Sequence[Standing]:
        """See `Book`."""
        pipeline = self._redis.pipeline(transaction=False)
        for pot in pots:
            pipeline.hmget(PREFIX + pot.key, ["spent", "reserved"])
        try:
            found = await pipeline.execute()
        except self._failures as error:
            raise _unreachable(error) from None
        return [
            Standing(spent=self._openings.get(pot.key, 0) if spent is None else int(spent), reserved=int(reserved or 0))
            for pot, (spent, reserved) in zip(pots, found, strict=True)
        ]

    async def freed(self, *, priority: int, seconds: float) -> None:
        """See `Book`. Another server may free it, so Redis is asked again and again, those of higher priority a little more often."""
        pause = POLL_SECONDS * (random.uniform(0.5, 1.0) if priority > 0 else random.uniform(1.0, 1.5))
        await asyncio.sleep(min(seconds, pause))

    async def close(self) -> None:
        """See `Book`."""
        await self._redis.aclose()

    async def _run(self, script: Any, pots: Sequence[Pot], given: Sequence[Any]) -> Any:
        keys = [PREFIX + pot.key for pot in pots] + [f"{PREFIX}{pot.key}:ends" for pot in pots]
        try:
            return await script(keys=keys, args=given)
        except self._failures as error:
            raise _unreachable(error) from None


def _until(pot: Pot) -> int:
    return int(pot.ends) + KEPT_SECONDS


def _unreachable(error: BaseException) -> StoreError:
    return StoreError(f"Redis does not answer ({type(error).__name__}). Look at `store.redis` and at the server that it names.")
