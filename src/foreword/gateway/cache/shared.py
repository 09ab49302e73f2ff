"""Answers kept in Redis (or Valkey), so that several servers give each other's answers. Each tenant's have keys of their own."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

import msgspec

from foreword.errors import ConfigError
from foreword.gateway.cache.exact import CachedAnswer, Found, Selection

PREFIX = "foreword:cache:"
SCANNED = 500
SECONDS = 0.5
"""A cache that takes longer is no help, and the request goes on as with a miss."""

logger = logging.getLogger(__name__)


class _Kept(msgspec.Struct, frozen=True):
    """An answer as it lies there."""

    tenant: str
    body: bytes
    model: str
    created: float
    ttl: float | None
    prefix_versions: list[str]
    prompt_version: str | None
    tags: list[str]


_DECODER = msgspec.msgpack.Decoder(_Kept)


class RedisStore:
    """Meets `AnswerStore`. Where Redis does not answer, there is no answer: nothing waits for it, and the log tells."""

    def __init__(self, client: Any, *, keep_stale: float, clock: Callable[[], float] = time.time) -> None:
        self._client, self._keep_stale, self._clock = client, keep_stale, clock

    @classmethod
    def at(cls, url: str, *, keep_stale: float = 3_600.0) -> RedisStore:
        """The store at a `redis://` URL. Raises `ConfigError` where the package is not installed."""
        try:
            from redis.asyncio import Redis
        except ModuleNotFoundError as error:
            raise ConfigError(
                "A cache that servers share needs the package `redis`. Install it: pip install 'foreword[shared]'."
            ) from error
        return cls(Redis.from_url(url, socket_timeout=SECONDS, socket_connect_timeout=SECONDS), keep_stale=keep_stale)

    async def get(self, key: str, *, tenant: str, stale: bool = False) -> Found | None:
        """See `AnswerStore`."""
        raw = await self._asked("get", self._client.get, _name(tenant, key))
        if raw is None:
            return None
        try:
            kept = _DECODER.decode(raw)
        except msgspec.MsgspecError:
            logger.warning("the shared cache holds something that is no answer; it is left alone")
            return None
        if kept.tenant != tenant:
            return None
        age = max(self._clock() - kept.created, 0.0)
        late = kept.ttl is not None and age > kept.ttl
        if late and not stale:
            return None
        return Found(answer=_answer(kept), age=age, stale=late)

    async def put(self, key: str, answer: CachedAnswer) -> None:
        """See `AnswerStore`."""
        kept = _Kept(
            tenant=answer.tenant,
            body=answer.body,
            model=answer.model,
            created=answer.created,
            ttl=answer.ttl,
            prefix_versions=list(answer.prefix_versions),
            prompt_version=answer.prompt_version,
            tags=sorted(answer.tags),
        )
        seconds = None if answer.ttl is None else max(1, round(answer.ttl + self._keep_stale))
        await self._asked("put", self._client.set, _name(answer.tenant, key), msgspec.msgpack.encode(kept), ex=seconds)

    async def invalidate(self, selection: Selection) -> int:
        """See `AnswerStore`. Looks through all answers that it has, so it is for operators and not for requests."""
        dropped = 0
        pattern = _name(selection.tenant, "*") if selection.tenant is not None else f"{PREFIX}*"
        async for name in self._client.scan_iter(match=pattern, count=SCANNED):
            raw = await self._client.get(name)
            try:
                kept = None if raw is None else _DECODER.decode(raw)
            except msgspec.MsgspecError:
                continue
            if kept is not None and selection.fits(_answer(kept)):
                dropped += await self._client.delete(name)
        return dropped

    async def close(self) -> None:
        """Closes the connections."""
        await self._client.aclose()

    async def _asked(self, what: str, call: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        from redis.exceptions import RedisError

        try:
            return await call(*arguments, **options)
        except (RedisError, OSError, TimeoutError) as error:
            logger.warning("the shared cache did not answer (%s): %s", what, type(error).__name__)
            return None


def _name(tenant: str, key: str) -> str:
    # The tenant's length, so that no name of one can be made of another's name and key.
    return f"{PREFIX}{len(tenant)}:{_escaped(tenant)}:{key}"


def _escaped(tenant: str) -> str:
    """A tenant's name with what a pattern would read as more than itself taken out."""
    return "".join(character if character.isalnum() or character in "-_." else f"%{ord(character):x}." for character in tenant)


def _answer(kept: _Kept) -> CachedAnswer:
    return CachedAnswer(
        tenant=kept.tenant,
        body=kept.body,
        model=kept.model,
        created=kept.created,
        ttl=kept.ttl,
        prefix_versions=tuple(kept.prefix_versions),
        prompt_version=kept.prompt_version,
        tags=frozenset(kept.tags),
    )
