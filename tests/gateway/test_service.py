"""Whether requests are under way."""

from __future__ import annotations

import asyncio

from foreword.gateway.service import Traffic


def test_idle_once_the_last_one_left():
    async def run() -> None:
        traffic = Traffic()
        await traffic.idle()
        traffic.enter()
        traffic.enter()
        waiting = asyncio.create_task(traffic.idle())
        traffic.leave()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert not waiting.done() and traffic.in_flight == 1
        traffic.leave()
        await waiting

    asyncio.run(run())
