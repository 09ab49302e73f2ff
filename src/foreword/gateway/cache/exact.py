"""Answers kept by the digest of their request: what a store of them can do, and the one in this process."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from foreword.errors import ConfigError

OVERHEAD = 512
"""Bytes that an entry takes besides its answer, about."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CachedAnswer:
    """An answer that may be given again.

    Attributes:
        tenant: whose it is.
        body: the answer as it travels, without what is new each time.
        model: what made it; `prefix_versions` and `prompt_version` what it was made with.
        tags: freshness tags, by which the answers about one thing are dropped when the thing changes.
        created: seconds since the epoch.
        ttl: seconds that it is fresh; None for as long as it is kept.
    """

    tenant: str
    body: bytes
    model: str
    created: float
    ttl: float | None = None
    prefix_versions: tuple[str, ...] = ()
    prompt_version: str | None = None
    tags: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """An answer that was kept. Attributes: age: seconds since it was made; stale: whether it is past its time."""

    answer: CachedAnswer
    age: float
    stale: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Which answers are meant: those that every given field fits. Raises `ConfigError` where none is given, which would mean all."""

    tenant: str | None = None
    tag: str | None = None
    model: str | None = None
    prompt_version: str | None = None
    prefix_version: str | None = None

    def __post_init__(self) -> None:
        """Refuses an empty one."""
        if self.tenant is self.tag is self.model is self.prompt_version is self.prefix_version is None:
            raise ConfigError("Nothing says which cached answers to drop. Name a tenant, tag, model, prompt version or prefix version.")

    def fits(self, answer: CachedAnswer) -> bool:
        """Whether an answer is meant."""
        return (
            self.tenant in (None, answer.tenant)
            and (self.tag is None or self.tag in answer.tags)
            and self.model in (None, answer.model)
            and self.prompt_version in (None, answer.prompt_version)
            and (self.prefix_version is None or self.prefix_version in answer.prefix_versions)
        )


class AnswerStore(Protocol):
    """Keeps answers. What is in it for one tenant, no other gets, whatever key it asks by."""

    async def get(self, key: str, *, tenant: str, stale: bool = False) -> Found | None:
        """The answer under `key`. Args: stale: also one past its time, as long as it is still there."""
        ...

    async def put(self, key: str, answer: CachedAnswer) -> None:
        """Keeps an answer in place of what was there."""
        ...

    async def invalidate(self, selection: Selection) -> int:
        """Drops the answers that are meant; returns how many there were."""
        ...


class MemoryStore:
    """Answers in this process, the least recently used of which make room. Meets `AnswerStore`. One event loop uses it."""

    def __init__(self, *, most_bytes: int = 64 * 2**20, keep_stale: float = 3_600.0, clock: Callable[[], float] = time.time) -> None:
        """
        Args:
            most_bytes: what all entries together may take.
            keep_stale: seconds that an answer is kept after its time is up, for those who take a stale one rather than none.

        Raises:
            ConfigError: a size or a time below 0.
        """
        if most_bytes < 0 or keep_stale < 0:
            raise ConfigError(f"A cache's size and times are 0 or more; got {most_bytes} bytes and {keep_stale} s.")
        self._most_bytes, self._keep_stale, self._clock = most_bytes, keep_stale, clock
        self._answers: OrderedDict[str, CachedAnswer] = OrderedDict()
        self.bytes = 0

    def __len__(self) -> int:
        """Answers kept, stale ones too."""
        return len(self._answers)

    async def get(self, key: str, *, tenant: str, stale: bool = False) -> Found | None:
        """See `AnswerStore`."""
        answer = self._answers.get(key)
        if answer is None or answer.tenant != tenant:
            return None
        age = max(self._clock() - answer.created, 0.0)
        late = 0.0 if answer.ttl is None else age - answer.ttl
        if late > self._keep_stale:
            self._drop(key)
            return None
        if late > 0 and not stale:
            return None
        self._answers.move_to_end(key)
        return Found(answer=answer, age=age, stale=late > 0)

    async def put(self, key: str, answer: CachedAnswer) -> None:
        """See `AnswerStore`. An answer larger than the whole cache is not kept."""
        self._drop(key)
        size = _size(answer)
        if size > self._most_bytes:
            return
        while self.bytes + size > self._most_bytes:
            self._drop(next(iter(self._answers)))
        self._answers[key] = answer
        self.bytes += size

    async def invalidate(self, selection: Selection) -> int:
        """See `AnswerStore`."""
        meant = [key for key, answer in self._answers.items() if selection.fits(answer)]
        for key in meant:
            self._drop(key)
        return len(meant)

    def _drop(self, key: str) -> None:
        answer = self._answers.pop(key, None)
        if answer is not None:
            self.bytes -= _size(answer)


def _size(answer: CachedAnswer) -> int:
    return len(answer.body) + sum(map(len, answer.tags)) + OVERHEAD
