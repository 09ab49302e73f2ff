"""Serves a conversation from a prefix that stands for its first messages, though nobody asked for one.

A prefix that was compiled from a prompt's fixed part says in its header which messages it holds (by their hash). Where a request to the
bare model begins with just these, they are taken off and the prefix stands in their place: the model is fed the same tokens, and does not
read those of the prefix again. The longest match wins, and of several the newest.

The hashes of a store are kept in memory. One `stat` of the store's folder tells whether anything was published or removed; what changed
is then read again in a thread, for which a request waits a moment and no longer. Every few seconds the names' own folders are looked at
too, for files that were put there by other means. A match is used only while its file is the one whose header was read.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from foreword.errors import PrefixError
from foreword.gateway.file_state import State, state_of
from foreword.gateway.naming import Named
from foreword.gateway.tenants import Tenant
from foreword.prefix.header import StandsFor, read_header
from foreword.prefix.stands_for import leading_hashes
from foreword.prefix.store import PrefixStore, Reference
from foreword.types import Message

HEADER = "foreword-stands-for"
PATIENCE_SECONDS = 0.05
"""How long a request waits for the store to be read again."""
RECHECK_SECONDS = 2.0
"""After how long folders are looked at again though the store's own shows no change."""
SETTLED_SECONDS = 2.0
"""A folder changed less long ago may change again without its time of change showing it."""
LARGEST_SHARE = 0.1
"""Of the time, that is spent on reading a store which changes all the while."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class StandIn:
    """One version of a prefix that stands for messages. `state` is that of its file when the header was read."""

    reference: Reference
    state: State
    stands_for: StandsFor
    created: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """A prefix for the first messages of a conversation, and the messages that are left."""

    stand_in: StandIn
    rest: tuple[Message, ...]

    def named(self, model: str) -> Named:
        """As if the request had asked for the prefix; `model` is what it did ask for."""
        reference = self.stand_in.reference
        return Named(model=model, label=reference.name, references=(reference,))

    @property
    def headers(self) -> dict[str, str]:
        """What the answer says about it."""
        return {HEADER: self.stand_in.reference.name}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Index:
    """Stand-ins by the hash of their messages, the newest first, and how many messages they stand for, the most first."""

    by_hash: Mapping[str, tuple[StandIn, ...]] = field(default_factory=dict)
    counts: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Folder:
    """What lies under one name: None for a version that stands for nothing, or cannot be read."""

    state: State
    settled: bool
    files: Mapping[Reference, tuple[State, StandIn | None]]


class StandIns:
    """Finds stand-ins in one store. For one event loop."""

    def __init__(self, store: PrefixStore) -> None:
        self._store = store
        self._index = _Index()
        self._refused: set[tuple[Reference, State]] = set()
        self._folders: dict[str, _Folder] = {}
        self._seen: State | None = None
        self._reading: asyncio.Task[None] | None = None
        self._began = self._ended = float("-inf")

    async def matches(self, conversation: Sequence[Message], tenant: Tenant, *, repetition_penalty: float | None) -> list[Match]:
        """Prefixes that this tenant may use in the place of the first messages, the best first; none where the answer could differ."""
        await self._look()
        # A repetition penalty looks at the prompt's tokens, and would miss those in the prefix.
        if repetition_penalty not in (None, 1):
            return []
        index = self._index
        counts = [count for count in index.counts if _goes_on(conversation[count:])]
        hashes = leading_hashes(conversation, counts)
        return [
            Match(stand_in=stand_in, rest=tuple(conversation[count:]))
            for count in counts
            for stand_in in index.by_hash.get(hashes[count], ())
            # Before its file is looked at, so that what a tenant may not see takes as long as what is not there.
            if stand_in.stands_for.count == count and tenant.sees(stand_in.reference.name) and self._is_usable(stand_in)
        ]

    def refuse(self, match: Match, error: PrefixError) -> None:
        """Takes a match out of use, after the engine would not have its prefix, until its file is another."""
        logger.warning("prefix %s cannot stand for messages: %s", match.stand_in.reference, error)
        self._refused.add((match.stand_in.reference, match.stand_in.state))

    def _is_usable(self, stand_in: StandIn) -> bool:
        return (stand_in.reference, stand_in.state) not in self._refused and state_of(stand_in.reference.path) == stand_in.state

    async def _look(self) -> None:
        """Sees to it that the index is of now, or nearly."""
        if self._reading is None and self._is_due():
            self._began = time.monotonic()
            self._reading = asyncio.create_task(self._read())
        if self._reading is not None:
            await asyncio.wait({self._reading}, timeout=max(0.0, self._began + PATIENCE_SECONDS - time.monotonic()))

    def _is_due(self) -> bool:
        now = time.monotonic()
        if now - self._ended > RECHECK_SECONDS:
            return True
        rested = now - self._ended >= (self._ended - self._began) * (1 / LARGEST_SHARE - 1)
        return rested and state_of(self._store.root) != self._seen

    async def _read(self) -> None:
        try:
            # Taken before the folders are, so that a change in between is seen next time.
            seen = state_of(self._store.root)
            self._folders = await asyncio.to_thread(_read_again, self._store, self._folders)
            self._index = _indexed(self._folders)
            self._refused &= {(ref, state) for folder in self._folders.values() for ref, (state, _) in folder.files.items()}
            self._seen = seen
        except Exception:
            # Whatever is wrong with the store, requests are answered without it.
            logger.exception("the store cannot be read; what stood for messages before still does")
        finally:
            self._ended = time.monotonic()
            self._reading = None


def _goes_on(rest: Sequence[Message]) -> bool:
    """Whether these turns can follow a prefix as it was tried when it was made: the user's and the assistant's, in turn."""
    return bool(rest) and all(message.role == ("assistant" if number % 2 else "user") for number, message in enumerate(rest))


def _read_again(store: PrefixStore, before: Mapping[str, _Folder]) -> dict[str, _Folder]:
    """The store's folders, those anew that changed."""
    folders = {}
    for name in store.names():
        now, state = time.time(), state_of(store.root / name)
        if state is None:
            continue
        known = before.get(name)
        if known is not None and known.settled and known.state == state:
            folders[name] = known
        else:
            files = _files(store, name, {} if known is None else known.files)
            folders[name] = _Folder(state=state, settled=now - state[0] / 1e9 > SETTLED_SECONDS, files=files)
    return folders


def _files(
    store: PrefixStore, name: str, before: Mapping[Reference, tuple[State, StandIn | None]]
) -> dict[Reference, tuple[State, StandIn | None]]:
    files = {}
    for reference in store.references(name):
        state = state_of(reference.path)
        if state is not None:
            known = before.get(reference)
            files[reference] = known if known is not None and known[0] == state else (state, _stand_in(reference, state))
    return files


def _stand_in(reference: Reference, state: State) -> StandIn | None:
    try:
        header = read_header(reference.path)
    except PrefixError as error:
        logger.warning("prefix %s cannot be read: %s", reference, error)
        return None
    if header.stands_for is None or header.prompt_format != "continuation":
        return None
    return StandIn(reference=reference, state=state, stands_for=header.stands_for, created=header.created)


def _indexed(folders: Mapping[str, _Folder]) -> _Index:
    by_hash: dict[str, list[StandIn]] = {}
    for folder in folders.values():
        for _, stand_in in folder.files.values():
            if stand_in is not None:
                by_hash.setdefault(stand_in.stands_for.messages, []).append(stand_in)
    for found in by_hash.values():
        found.sort(key=lambda stand_in: (stand_in.created, stand_in.reference.version, stand_in.reference.name), reverse=True)
    counts = {stand_in.stands_for.count for found in by_hash.values() for stand_in in found}
    return _Index(by_hash={key: tuple(found) for key, found in by_hash.items()}, counts=tuple(sorted(counts, reverse=True)))
