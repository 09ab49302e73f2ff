"""Budgets: money for a period, set aside before a model is called, and settled with what it really cost.

    budgets = budgets_of(parts)          # None where the settings have none
    await budgets.begin(passage)         # which budgets hold; near their end the request is served more cheaply
    await passage.hold.reserve(passage)  # before the first call; waits, or refuses (429)
    await passage.hold.more(model, ...)  # before a further call, such as an escalation's
                                         # what the request cost is counted once it is billed, whatever became of it

A reservation is what the call would cost if its answer were as long as it may be. Retries, hedged calls and fallbacks to a dearer model are
not reserved for; what they cost is counted when the request settles. After a restart the accounts go on from the ledger's sums.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import quote

from sqlalchemy import func, select

from foreword.cost.ledger import CHARGES, ENTRIES, Ledger, whole_units
from foreword.cost.rates import Consumed
from foreword.errors import StoreError
from foreword.gateway.budget_book import Book, Lack, MemoryBook, Pot
from foreword.gateway.errors import BUSY, SERVER, Refusal
from foreword.gateway.estimate import prompt_tokens
from foreword.gateway.passage import Passage
from foreword.gateway.path_settings import AUTO, BudgetSettings
from foreword.gateway.path_wire import PathRequest
from foreword.gateway.periods import period_end, period_start
from foreword.gateway.stage import Parts

LIGHTER, FEWER, SHORTER, STALE = "lighter tier", "fewer passages", "shorter history", "stale cache"
"""What a request does without where a budget is nearly spent; `Passage.degraded` names those that it had."""
OUTPUT_TOKENS = 4096
"""Reserved for an answer that nothing limits."""
FIRST_SECONDS, SECONDS_KEPT = 10.0, 32
"""Of a machine that is paid by the hour: reserved before its first answer, and afterwards as long as the longest of its last ones took."""
GRACE_SECONDS = 60.0
"""After a request's deadline, until what is set aside for it is given back in any case."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Share:
    """A budget that holds for a request, and its pot for the period that it is now."""

    settings: BudgetSettings
    pot: Pot


def budgets_of(parts: Parts) -> Budgets | None:
    """The budgets of the settings, kept in Redis where one is given; None where there are none. Raises `ConfigError`, `StoreError`."""
    settings = parts.settings
    if not settings.budgets:
        return None
    now = datetime.now(UTC)
    openings = {} if parts.ledger is None else {pot_of(one, now).key: _spent(parts.ledger, one, now) for one in settings.budgets}
    book: Book
    if settings.store.redis is not None:
        from foreword.gateway.shared_budgets import RedisBook

        book = RedisBook(settings.store.redis, openings)
    else:
        book = MemoryBook(openings)
    parts.closing.append(book.close)
    return Budgets(parts, book)


class Budgets:
    """All budgets of a server."""

    def __init__(self, parts: Parts, book: Book, *, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self.book, self.clock = book, clock
        self._settings, self._prices = parts.settings, parts.prices
        self._pots: dict[int, Pot] = {}
        self._seconds: dict[str, deque[float]] = {}

    def holding(self, passage: Passage) -> tuple[_Share, ...]:
        """The budgets that hold for a request."""
        now, tenant, task = self.clock(), passage.tenant.name, passage.task.name
        return tuple(
            _Share(settings=one, pot=self._pot(number, one, now))
            for number, one in enumerate(self._settings.budgets)
            if one.tenant in (None, tenant) and one.task in (None, task)
        )

    def _pot(self, number: int, budget: BudgetSettings, now: datetime) -> Pot:
        pot = self._pots.get(number)
        if pot is None or now.timestamp() >= pot.ends:
            pot = self._pots[number] = pot_of(budget, now)
        return pot

    async def begin(self, passage: Passage) -> None:
        """Gives a passage its hold, and makes it a cheaper one where a budget is nearly spent. Raises `Refusal` (503)."""
        shares = self.holding(passage)
        if not shares:
            return
        try:
            standings = await self.book.standings([share.pot for share in shares])
        except StoreError as error:
            raise _unreachable(error) from None
        hold = BudgetHold(self, passage, shares)
        passage.hold = hold
        passage.afterwards.append(hold.settle)
        for share, standing in zip(shares, standings, strict=True):
            if standing.spent + standing.reserved >= share.settings.degrade_at * share.pot.limit:
                passage.degraded.extend(_cheaper(passage))
                passage.told["foreword-degraded"] = ", ".join(passage.degraded) or "nothing left to leave out"
                return

    def units(self, model: str, request: PathRequest, passage: Passage) -> int | None:
        """What a call costs at most, in the ledger's units; None where nobody knows its price."""
        name = model.partition(":")[0]
        own = self._settings.model(name)
        rates = self._prices.rates(own.model, provider=own.provider, when=passage.at, name=name)
        if rates is None:
            return None
        given = (request.output_limit(), passage.task.output_limit, own.output_limit)
        output = min((limit for limit in given if limit is not None), default=OUTPUT_TOKENS)
        consumed = Consumed(
            input_tokens=prompt_tokens(request),
            output_tokens=output * (request.n if isinstance(request.n, int) else 1),
            machine_seconds=min(max(self._seconds.get(name, (FIRST_SECONDS,))), own.seconds),
        )
        charges = rates.charges(consumed)
        return None if charges is None else sum(whole_units(charge.amount) for charge in charges)

    def learn(self, passage: Passage) -> None:
        """Notes how long the machines that are paid by the hour took."""
        for line in passage.lines:
            for charge in line.charges or ():
                if charge.meter == "machine-second":
                    kept = self._seconds.setdefault(line.model.partition(":")[0], deque(maxlen=SECONDS_KEPT))
                    kept.append(float(charge.quantity))


class BudgetHold:
    """What is set aside for one request. Meets `Hold`."""

    def __init__(self, budgets: Budgets, passage: Passage, shares: tuple[_Share, ...]) -> None:
        self._budgets, self._passage, self._shares = budgets, passage, shares
        self._counted = 0

    async def reserve(self) -> None:
        """Sets the first call's money aside; waits for it where the budget says so. Raises `Refusal` (400, 429, 503)."""
        passage, budgets = self._passage, self._budgets
        if not passage.tiers:
            return
        units = budgets.units(passage.tiers[0], passage.request, passage)
        if units is None:
            if not self._unpriced_may_answer:
                raise _unpriced(passage.tiers[0])
            return
        loop = asyncio.get_running_loop()
        began = loop.time()
        while (lack := await self._reserve(units)) is not None:
            share = self._shares[lack.number]
            left = min(began + share.settings.queue_seconds, passage.deadline) - loop.time()
            until_next = share.pot.ends - budgets.clock().timestamp()
            if left <= 0 or units > share.pot.limit or (until_next > left and not lack.outstanding):
                raise _spent_up(share, units, max(1, math.ceil(until_next)))
            passage.told["foreword-queued"] = "budget"
            await budgets.book.freed(priority=passage.priority, seconds=max(0.001, min(left, until_next)))
            # The next period may have begun since.
            self._shares = budgets.holding(passage)

    async def more(self, model: str, request: PathRequest) -> bool:
        """See `Hold`."""
        units = self._budgets.units(model, request, self._passage)
        if units is None:
            return self._unpriced_may_answer
        try:
            return await self._reserve(units) is None
        except Refusal:
            return False

    async def settle(self) -> None:
        """Counts what the request cost, and gives the rest of what was set aside back. Counts nothing twice."""
        passage = self._passage
        self._budgets.learn(passage)
        cost = sum(whole_units(charge.amount) for line in passage.lines for charge in line.charges or ())
        due, self._counted = cost - self._counted, cost
        await self._budgets.book.settle([share.pot for share in self._shares], passage.id, due)

    @property
    def _unpriced_may_answer(self) -> bool:
        return all(share.settings.allow_unpriced for share in self._shares)

    async def _reserve(self, units: int) -> Lack | None:
        """Raises `Refusal` (503)."""
        seconds = max(0.0, self._passage.deadline - asyncio.get_running_loop().time()) + GRACE_SECONDS
        try:
            return await self._budgets.book.reserve([share.pot for share in self._shares], self._passage.id, units, seconds)
        except StoreError as error:
            raise _unreachable(error) from None


def pot_of(budget: BudgetSettings, at: datetime) -> Pot:
    """A budget's pot for the period that a moment lies in."""
    tenant, task = ("*" if name is None else quote(name, safe="") for name in (budget.tenant, budget.task))
    start = period_start(budget.period, at)
    return Pot(
        key=f"{tenant}/{task}/{budget.period}/{start:%Y-%m-%dT%H}",
        limit=whole_units(budget.amount),
        ends=period_end(budget.period, at).timestamp(),
    )


def _spent(ledger: Ledger, budget: BudgetSettings, at: datetime) -> int:
    """What the ledger has for a budget's period, in its units; what nobody could price is not in it. Raises `StoreError`."""
    where = [ENTRIES.c.at >= period_start(budget.period, at).timestamp()]
    if budget.tenant is not None:
        where.append(ENTRIES.c.tenant == budget.tenant)
    if budget.task is not None:
        where.append(ENTRIES.c.task_type == budget.task)
    query = select(func.sum(CHARGES.c.amount)).join(ENTRIES, ENTRIES.c.id == CHARGES.c.entry).where(*where)
    with ledger.database.reading() as connection:
        return int(connection.execute(query).scalar() or 0)


def _cheaper(passage: Passage) -> Sequence[str]:
    """What a request can do without."""
    task = passage.task
    had = (
        (LIGHTER, passage.asked.model == AUTO and len(task.tiers) > 1),
        (FEWER, task.assemble.passages is not None),
        (SHORTER, task.assemble.history_turns is not None),
        (STALE, task.cache.on),
    )
    return [name for name, there in had if there]


def _spent_up(share: _Share, units: int, seconds: int) -> Refusal:
    period = share.settings.period
    starts = datetime.fromtimestamp(share.pot.ends, UTC).strftime("%Y-%m-%d %H:%M UTC")
    if units > share.pot.limit:
        words = f"This request may cost more than the whole budget of this {period}. Ask for a shorter answer, with `max_tokens`."
    else:
        words = f"The budget of this {period} is spent. Send the request again from {starts} on, or ask for less, with `max_tokens`."
    # Clients that try again by themselves are told not to: nothing changes within the minute that they wait.
    headers = {"retry-after": str(seconds), "x-should-retry": "false"}
    return Refusal(429, words, kind=BUSY, code="budget_exceeded", headers=headers)


def _unpriced(model: str) -> Refusal:
    words = (
        f"`{model}` has no price, and a budget that holds for this request counts every call. "
        "Ask for another model, or have it given a `price` or the budget `allow_unpriced`."
    )
    return Refusal(400, words, code="unpriced_model", param="model")


def _unreachable(error: StoreError) -> Refusal:
    logger.warning("a request is refused as its budgets cannot be read: %s", error)
    words = "This request's budget cannot be looked up just now. Send the request again later."
    return Refusal(503, words, kind=SERVER, code="budget_unavailable", headers={"retry-after": "1"})
