"""The stage alone: how much is set aside, who gets what comes free, a period that ends meanwhile; and no money is lost, come what may."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foreword.cost.ledger import Line
from foreword.cost.rates import Charge, PriceTable
from foreword.gateway.budget_book import MemoryBook
from foreword.gateway.budgets import OUTPUT_TOKENS, Budgets
from foreword.gateway.errors import Refusal
from foreword.gateway.passage import Passage
from foreword.gateway.stage import Next, Parts, Stage, make
from walking import NOWHERE, parts_of, passage_of, settings_of

STAGES = ("intake", "budget", "route", "reserve", "infer", "bill")
UNIT = 10**12


def built(amount: int | str, *, price: dict[str, str] | None = None, task: dict[str, Any] | None = None, **budget: Any) -> Parts:
    """Parts with one model and one budget; a token of an answer costs 1."""
    own = {"input_per_million": "0", "output_per_million": "1000000"} if price is None else price
    budgets = [{"amount": amount, "degrade_at": 1.0, "period": "hour", **budget}]
    models = {"big": {"url": NOWHERE, "model": "big", "price": own}}
    built_settings = settings_of({"default": task or {}}, models=models, budgets=budgets, stages=STAGES)
    return replace(parts_of(built_settings), prices=PriceTable({"big": built_settings.models["big"].price}))


class Clock:
    """The time, as a test sets it."""

    def __init__(self) -> None:
        self.now = datetime(2027, 5, 4, 12, 30, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now


def walked(parts: Parts) -> tuple[Budgets, MemoryBook, Stage, Clock]:
    clock = Clock()
    book = MemoryBook(clock=lambda: clock.now.timestamp())
    return Budgets(parts, book, clock=clock), book, make("reserve", parts), clock


def asking(parts: Parts, most: int | None = 10, *, id: str = "one", **fields: Any) -> Passage:
    body = {"messages": [{"role": "user", "content": "Hi"}], **({} if most is None else {"max_tokens": most}), **fields}
    passage = passage_of(parts.settings, body, id=id)
    passage.tiers = ["big"]
    return passage


def paid(passage: Passage, tokens: int) -> None:
    charge = Charge(meter="output", quantity=Decimal(tokens), rate=Decimal(1))
    passage.lines.append(Line(stage="infer", model="big", charges=(charge,)))


async def end(passage: Passage) -> None:
    for after in passage.afterwards:
        await after()


async def reserved(parts: Parts, most: int | None = 10, *, budgets: Budgets | None = None, **fields: Any) -> float:
    """What is set aside for one request."""
    mine, book, stage, _ = walked(parts)
    passage = asking(parts, most, **fields)
    await (budgets or mine).begin(passage)
    assert await stage(passage) is Next.ON
    (standing,) = await book.standings([share.pot for share in mine.holding(passage)])
    return standing.reserved / UNIT


def test_what_the_longest_answer_costs_is_set_aside() -> None:
    assert asyncio.run(reserved(built(10_000), 10)) == 10
    assert asyncio.run(reserved(built(10_000), 10, n=3)) == 30
    assert asyncio.run(reserved(built(10_000), None)) == OUTPUT_TOKENS
    assert asyncio.run(reserved(built(10_000, task={"output_limit": 7}), 10)) == 7


def test_the_prompt_is_counted_by_its_length() -> None:
    price = {"input_per_million": "1000000", "output_per_million": "0"}
    short = asyncio.run(reserved(built(10_000, price=price)))
    long = asyncio.run(reserved(built(10_000, price=price), messages=[{"role": "user", "content": "x" * 4_000}]))
    assert 0 < short < 20 and 1_000 <= long < 1_020


def test_a_machine_is_reserved_for_as_long_as_it_took_of_late() -> None:
    async def main() -> tuple[float, float]:
        parts = built(10_000, price={"machine_hour": "3600"})
        budgets, book, stage, _ = walked(parts)
        first = asking(parts, id="first")
        await budgets.begin(first)
        await stage(first)
        pots = [share.pot for share in budgets.holding(first)]
        before = (await book.standings(pots))[0].reserved / UNIT
        charge = Charge(meter="machine-second", quantity=Decimal("2.5"), rate=Decimal(1))
        first.lines.append(Line(stage="infer", model="big:prefix", charges=(charge,)))
        await end(first)
        second = asking(parts, id="second")
        await budgets.begin(second)
        await stage(second)
        return before, (await book.standings(pots))[0].reserved / UNIT

    assert asyncio.run(main()) == (10.0, 2.5)


def test_what_comes_free_goes_to_the_most_urgent() -> None:
    async def main() -> list[str]:
        parts = built(10, queue_seconds=30)
        budgets, _, stage, _ = walked(parts)
        order: list[str] = []

        async def ask(name: str, priority: int) -> None:
            passage = asking(parts, id=name)
            passage.priority = priority
            await budgets.begin(passage)
            await stage(passage)
            order.append(name)
            await asyncio.sleep(0.01)
            await end(passage)

        waiting = [asyncio.ensure_future(ask("running", 0))]
        for name, priority in (("batch", -10), ("first", 0), ("second", 0), ("urgent", 5)):
            await asyncio.sleep(0)
            waiting.append(asyncio.ensure_future(ask(name, priority)))
        await asyncio.gather(*waiting)
        return order

    assert asyncio.run(main()) == ["running", "urgent", "first", "second", "batch"]


def test_a_new_period_has_its_own_money_and_the_old_ones_requests_are_settled_in_theirs() -> None:
    async def main() -> None:
        parts = built(10)
        budgets, book, stage, clock = walked(parts)
        late = asking(parts, id="late")
        await budgets.begin(late)
        await stage(late)
        old = [share.pot for share in budgets.holding(late)]
        clock.now += timedelta(hours=1)
        early = asking(parts, id="early")
        await budgets.begin(early)
        await stage(early)
        new = [share.pot for share in budgets.holding(early)]
        paid(late, 7)
        await end(late)
        (before,), (after,) = await book.standings(old), await book.standings(new)
        assert (before.spent, before.reserved) == (7 * UNIT, 0)
        assert (after.spent, after.reserved) == (0, 10 * UNIT)

    asyncio.run(main())


def test_the_time_to_come_back_is_the_periods_end() -> None:
    async def main() -> Refusal:
        parts = built(10)
        budgets, _, stage, _ = walked(parts)
        for name in ("one", "two"):
            passage = asking(parts, id=name)
            await budgets.begin(passage)
            if name == "two":
                with pytest.raises(Refusal) as refused:
                    await stage(passage)
                return refused.value
            await stage(passage)
        raise AssertionError

    refusal = asyncio.run(main())
    assert (refusal.status, refusal.headers["retry-after"]) == (429, "1800")
    assert "2027-05-04 13:00 UTC" in refusal.detail.message


def test_settling_twice_counts_once() -> None:
    async def main() -> None:
        parts = built(100)
        budgets, book, stage, _ = walked(parts)
        passage = asking(parts)
        await budgets.begin(passage)
        await stage(passage)
        pots = [share.pot for share in budgets.holding(passage)]
        paid(passage, 4)
        await end(passage)
        await end(passage)
        (standing,) = await book.standings(pots)
        assert (standing.spent, standing.reserved) == (4 * UNIT, 0)

    asyncio.run(main())


OUTCOMES = st.sampled_from(["answered", "failed", "cancelled", "escalated", "lost"])


@settings(max_examples=60, deadline=None)
@given(
    amount=st.integers(1, 200),
    requests=st.lists(st.tuples(st.integers(1, 40), OUTCOMES, st.floats(0, 1), st.integers(0, 5)), min_size=1, max_size=25),
    queue=st.sampled_from([0.0, 0.02]),
)
def test_whatever_befalls_requests_no_money_is_lost(amount: int, requests: list[tuple[int, str, float, int]], queue: float) -> None:
    async def main() -> None:
        parts = built(amount, queue_seconds=queue)
        budgets, book, stage, clock = walked(parts)
        costs = 0
        worst = 0

        async def ask(number: int, most: int, outcome: str, share: float, pauses: int) -> None:
            nonlocal costs, worst
            passage = asking(parts, most, id=f"r{number}")
            await budgets.begin(passage)
            try:
                await stage(passage)
                if outcome == "lost":
                    return
                assert passage.hold is not None
                allowed = most
                if outcome == "escalated" and await passage.hold.more("big", passage.request):
                    allowed += most
                for _ in range(pauses):
                    await asyncio.sleep(0)
                    (now,) = await book.standings(pots)
                    worst = max(worst, now.spent + now.reserved)
                if outcome == "cancelled":
                    raise asyncio.CancelledError
                if outcome != "failed":
                    paid(passage, int(allowed * share))
                    costs += int(allowed * share)
            except (Refusal, asyncio.CancelledError):
                pass
            await end(passage)

        pots = [share.pot for share in budgets.holding(asking(parts))]
        await asyncio.gather(*(ask(number, *request) for number, request in enumerate(requests)))
        (standing,) = await book.standings(pots)
        assert standing.spent == costs * UNIT <= amount * UNIT
        assert worst <= amount * UNIT
        lost = sum(most for most, outcome, _, _ in requests if outcome == "lost")
        assert 0 <= standing.reserved <= lost * UNIT
        # What nobody settles comes back when its time is over.
        clock.now += timedelta(seconds=parts.settings.task("default").seconds + 61)
        left = amount * UNIT - standing.spent
        assert await book.reserve(pots, "next", left, 1.0) is None

    asyncio.run(main())
