"""Accounts of budgets: what is spent in a period, and what is set aside for requests under way.

Money is set aside in all of a request's budgets or in none, so that what is spent and what is set aside together never exceed a budget;
only a request that costs more than was set aside for it can. What is set aside is given back when the request settles, and at the latest
when its time is over, whatever became of it.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

MOST_ACCOUNTS = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Pot:
    """One budget's money for one period.

    Attributes:
        key: of the budget and the period.
        limit: in the ledger's units.
        ends: seconds since the epoch.
    """

    key: str
    limit: int
    ends: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How a pot stands, in the ledger's units."""

    spent: int
    reserved: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Lack:
    """Why nothing was set aside.

    Attributes:
        number: of the first pot that has too little.
        outstanding: whether something is set aside in it that may come free.
    """

    number: int
    outstanding: bool


class Book(Protocol):
    """Where the accounts are kept. For one event loop. Raises `StoreError` where it cannot be reached."""

    async def reserve(self, pots: Sequence[Pot], hold: str, units: int, seconds: float) -> Lack | None:
        """Sets so much more aside for `hold`, in every pot or in none, for so many seconds at most."""
        ...

    async def settle(self, pots: Sequence[Pot], hold: str, units: int) -> None:
        """Gives back what was set aside for `hold`, and counts so much as spent."""
        ...

    async def standings(self, pots: Sequence[Pot]) -> Sequence[Standing]:
        """How the pots stand."""
        ...

    async def freed(self, *, priority: int, seconds: float) -> None:
        """Returns when money may have come free, to higher priorities first, or after so many seconds."""
        ...

    async def close(self) -> None:
        """Ends what it holds open."""
        ...


@dataclass(slots=True)
class _Account:
    spent: int
    ends: float
    reserved: int = 0
    holds: dict[str, tuple[int, float]] = field(default_factory=dict)


class MemoryBook:
    """Accounts in this process. Meets `Book`."""

    def __init__(self, openings: Mapping[str, int] | None = None, *, clock: Callable[[], float] = time.time) -> None:
        """Args: openings: what is spent already, by the pots' keys. clock: seconds since the epoch."""
        self._openings, self._clock = dict(openings or {}), clock
        self._accounts: dict[str, _Account] = {}
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []
        self._numbers = itertools.count()

    def __len__(self) -> int:
        """Accounts kept."""
        return len(self._accounts)

    @property
    def waiting(self) -> int:
        """Requests that wait for money."""
        return len(self._waiting)

    async def reserve(self, pots: Sequence[Pot], hold: str, units: int, seconds: float) -> Lack | None:
        """See `Book`."""
        now = self._clock()
        accounts = [self._account(pot, now) for pot in pots]
        for number, (pot, account) in enumerate(zip(pots, accounts, strict=True)):
            if account.spent + account.reserved + units > pot.limit:
                _give_back_overdue(account, now)
                if account.spent + account.reserved + units > pot.limit:
                    return Lack(number=number, outstanding=account.reserved > 0)
        for account in accounts:
            held, _ = account.holds.get(hold, (0, 0.0))
            account.holds[hold] = (held + units, now + seconds)
            account.reserved += units
        return None

    async def settle(self, pots: Sequence[Pot], hold: str, units: int) -> None:
        """See `Book`."""
        now = self._clock()
        for pot in pots:
            account = self._account(pot, now)
            held, _ = account.holds.pop(hold, (0, 0.0))
            account.reserved -= held
            account.spent += units
        waiting, self._waiting = self._waiting, []
        # They go on in the order in which their futures are set, so the first to try is the first in the queue.
        for _, _, turn in sorted(waiting, key=lambda one: one[:2]):
            if not turn.done():
                turn.set_result(None)

    async def standings(self, pots: Sequence[Pot]) -> Sequence[Standing]:
        """See `Book`."""
        now = self._clock()
        accounts = [self._account(pot, now) for pot in pots]
        return [Standing(spent=account.spent, reserved=account.reserved) for account in accounts]

    async def freed(self, *, priority: int, seconds: float) -> None:
        """See `Book`."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = (-priority, next(self._numbers), turn)
        self._waiting.append(entry)
        try:
            await asyncio.wait({turn}, timeout=seconds)
        finally:
            turn.cancel()
            if entry in self._waiting:
                self._waiting.remove(entry)

    async def close(self) -> None:
        """See `Book`."""

    def _account(self, pot: Pot, now: float) -> _Account:
        account = self._accounts.get(pot.key)
        if account is None:
            if len(self._accounts) >= MOST_ACCOUNTS:
                self._accounts = {key: one for key, one in self._accounts.items() if one.ends > now or one.holds}
            account = self._accounts[pot.key] = _Account(spent=self._openings.pop(pot.key, 0), ends=pot.ends)
        return account


def _give_back_overdue(account: _Account, now: float) -> None:
    """What is set aside for requests whose time is over: they have ended in a way that nobody has settled."""
    for hold in [hold for hold, (_, until) in account.holds.items() if until <= now]:
        held, _ = account.holds.pop(hold)
        account.reserved -= held
