"""The arithmetic of accounts: whatever happens in whatever order, money is neither made nor lost, and no account is overdrawn."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from foreword.gateway.budget_book import Lack, MemoryBook, Pot, Standing

T = TypeVar("T")
POTS = tuple(Pot(key=name, limit=limit, ends=1e12) for name, limit in (("a", 100), ("b", 250), ("c", 1_000)))


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that waits for nothing."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value
    raise AssertionError("it waits")


class Accounts(RuleBasedStateMachine):
    """A book beside the plainest model of one: what each request has set aside, and what each pot has spent."""

    @initialize(openings=st.dictionaries(st.sampled_from("abc"), st.integers(0, 120)))
    def begin(self, openings: dict[str, int]) -> None:
        self.now = 1_000.0
        self.book = MemoryBook(openings, clock=lambda: self.now)
        self.spent = {pot.key: openings.get(pot.key, 0) for pot in POTS}
        self.above = {pot.key: max(0, self.spent[pot.key] - pot.limit) for pot in POTS}
        self.held: dict[str, tuple[tuple[Pot, ...], int, float]] = {}
        self.number = 0

    def reserved(self, pot: Pot) -> int:
        return sum(units for pots, units, _ in self.held.values() if pot in pots)

    @rule(pots=st.sets(st.sampled_from(POTS), min_size=1), units=st.integers(0, 150), seconds=st.integers(1, 50))
    def reserve(self, pots: set[Pot], units: int, seconds: int) -> None:
        wanted = tuple(sorted(pots, key=lambda pot: pot.key))
        self.number += 1
        lacking = run(self.book.reserve(wanted, f"r{self.number}", units, seconds))
        if lacking is None:
            # What is overdue was given back at the latest where it was needed.
            assert all(self.spent[pot.key] + self.live(pot) + units <= pot.limit for pot in wanted)
            self.held[f"r{self.number}"] = (wanted, units, self.now + seconds)
        else:
            pot = wanted[lacking.number]
            # What is overdue has just been given back.
            assert lacking.outstanding is (self.live(pot) > 0)
            assert self.spent[pot.key] + self.live(pot) + units > pot.limit

    def live(self, pot: Pot) -> int:
        return sum(units for pots, units, until in self.held.values() if pot in pots and until > self.now)

    @rule(data=st.data(), units=st.integers(0, 60))
    def more(self, data: st.DataObject, units: int) -> None:
        live = [hold for hold, (_, _, until) in self.held.items() if until > self.now]
        if live:
            hold = data.draw(st.sampled_from(live))
            pots, held, _ = self.held[hold]
            if run(self.book.reserve(pots, hold, units, 30)) is None:
                self.held[hold] = (pots, held + units, self.now + 30)

    @rule(data=st.data(), share=st.floats(0, 1))
    def settle(self, data: st.DataObject, share: float) -> None:
        if not self.held:
            return
        hold = data.draw(st.sampled_from(sorted(self.held)))
        pots, units, until = self.held.pop(hold)
        cost = int(units * share)
        run(self.book.settle(pots, hold, cost))
        for pot in pots:
            self.spent[pot.key] += cost
            if until <= self.now:
                # Nothing was set aside for it any more.
                self.above[pot.key] += cost

    @rule(pot=st.sampled_from(POTS), cost=st.integers(0, 20))
    def settle_without_a_hold(self, pot: Pot, cost: int) -> None:
        run(self.book.settle((pot,), "stranger", cost))
        self.spent[pot.key] += cost
        self.above[pot.key] += cost

    @rule(seconds=st.integers(1, 40))
    def wait(self, seconds: int) -> None:
        self.now += seconds

    @invariant()
    def nothing_is_lost_and_nothing_overdrawn(self) -> None:
        for pot, standing in zip(POTS, run(self.book.standings(POTS)), strict=True):
            assert standing.spent == self.spent[pot.key]
            assert self.live(pot) <= standing.reserved <= self.reserved(pot)
            assert standing.reserved >= 0
            assert standing.spent + self.live(pot) <= pot.limit + self.above[pot.key]

    def teardown(self) -> None:
        if not hasattr(self, "book"):
            return
        for hold, (pots, _, _) in self.held.items():
            run(self.book.settle(pots, hold, 0))
        assert all(standing.reserved == 0 for standing in run(self.book.standings(POTS)))


Accounts.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestAccounts = Accounts.TestCase


def test_money_is_set_aside_in_all_pots_or_in_none() -> None:
    book = MemoryBook()
    small, large = Pot(key="s", limit=10, ends=1e12), Pot(key="l", limit=100, ends=1e12)
    assert run(book.reserve((large, small), "one", 11, 60)) == Lack(number=1, outstanding=False)
    assert run(book.standings((large, small))) == [Standing(spent=0, reserved=0)] * 2
    assert run(book.reserve((large, small), "one", 10, 60)) is None
    assert run(book.standings((large, small))) == [Standing(spent=0, reserved=10)] * 2


def test_whoever_waits_is_called_by_priority_and_then_by_turn() -> None:
    async def main() -> list[str]:
        book, order = MemoryBook(), []

        async def wait(name: str, priority: int) -> None:
            await book.freed(priority=priority, seconds=30)
            order.append(name)

        waiting = []
        for name, priority in (("low", -1), ("first", 0), ("second", 0), ("high", 5)):
            waiting.append(asyncio.ensure_future(wait(name, priority)))
            await asyncio.sleep(0)
        await book.settle((), "one", 0)
        await asyncio.gather(*waiting)
        return order

    assert asyncio.run(main()) == ["high", "first", "second", "low"]


def test_nobody_waits_longer_than_asked_and_who_leaves_is_forgotten() -> None:
    async def main() -> None:
        book = MemoryBook()
        await book.freed(priority=0, seconds=0.01)
        waiting = asyncio.ensure_future(book.freed(priority=0, seconds=30))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        assert book.waiting == 0

    asyncio.run(main())


def test_accounts_of_periods_that_are_over_make_room() -> None:
    now = [0.0]
    book = MemoryBook(clock=lambda: now[0])
    for number in range(5_000):
        now[0] = float(number)
        run(book.settle((Pot(key=f"p{number}", limit=1, ends=number + 10.0),), "x", 1))
    assert len(book) < 4_200
