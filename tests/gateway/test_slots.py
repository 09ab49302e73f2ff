"""Places are handed on in order of priority, and none is lost to a call that stops waiting."""

from __future__ import annotations

import asyncio

import pytest

from foreword.gateway.slots import Slots


def test_no_more_than_so_many_are_taken() -> None:
    slots = Slots(2)
    assert [slots.take(), slots.take(), slots.take()] == [True, True, False]
    assert not slots.are_free
    slots.leave()
    assert slots.are_free
    assert slots.take()


def test_higher_priorities_go_first_and_equal_ones_in_their_order() -> None:
    async def main() -> list[str]:
        slots, order = Slots(1), []
        assert slots.take()

        async def call(name: str, priority: int) -> None:
            await slots.wait(priority=priority, seconds=30.0)
            order.append(name)
            slots.leave()

        calls = []
        for name, priority in (("batch", -1), ("first", 0), ("second", 0), ("urgent", 5)):
            calls.append(asyncio.ensure_future(call(name, priority)))
            await asyncio.sleep(0)
        slots.leave()
        await asyncio.gather(*calls)
        assert slots.used == 0
        return order

    assert asyncio.run(main()) == ["urgent", "first", "second", "batch"]


def test_nobody_overtakes_one_who_waits() -> None:
    async def main() -> None:
        slots = Slots(1)
        slots.take()
        waiting = asyncio.ensure_future(slots.wait(priority=0, seconds=30.0))
        await asyncio.sleep(0)
        slots.leave()
        # The place is the waiting call's, though that has not run yet.
        assert not slots.take()
        await waiting
        assert slots.used == 1

    asyncio.run(main())


def test_a_wait_ends_with_its_time_and_leaves_the_place_to_others() -> None:
    async def main() -> None:
        slots = Slots(1)
        slots.take()
        with pytest.raises(TimeoutError):
            await slots.wait(priority=0, seconds=0.01)
        slots.leave()
        assert slots.used == 0
        assert slots.take()

    asyncio.run(main())


def test_a_place_that_comes_to_a_call_that_was_just_cancelled_goes_on() -> None:
    async def main() -> None:
        slots = Slots(1)
        slots.take()
        first = asyncio.ensure_future(slots.wait(priority=0, seconds=30.0))
        second = asyncio.ensure_future(slots.wait(priority=0, seconds=30.0))
        await asyncio.sleep(0)
        slots.leave()
        first.cancel()
        await asyncio.wait({first, second}, timeout=30.0)
        assert first.cancelled()
        assert second.done()
        second.result()
        assert slots.used == 1

    asyncio.run(main())
