"""Accounts in a real Redis: the same arithmetic as in this process, shared by servers, and what happens when Redis is away."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from decimal import Decimal
from typing import Any

import pytest

from foreword.errors import ConfigError, StoreError
from foreword.gateway.budget_book import Lack, MemoryBook, Pot
from foreword.gateway.shared_budgets import RedisBook
from paths import serving_path
from redis_servers import NEEDS_REDIS, redis_server
from upstreams import after_seconds, answer, upstream

pytestmark = NEEDS_REDIS
NEVER = 4e9
PRICE = {"input_per_million": "0", "output_per_million": "1000000"}
STAGES = ("intake", "guard-in", "budget", "route", "reserve", "infer", "check", "bill")


@pytest.fixture(scope="module")
def redis_url() -> Iterator[str]:
    with redis_server() as url:
        yield url


def test_it_does_what_the_book_in_this_process_does(redis_url: str) -> None:
    async def main() -> None:
        pots = tuple(Pot(key=f"same-{name}", limit=limit, ends=NEVER) for name, limit in (("a", 100), ("b", 10**16), ("c", 40)))
        openings = {"same-a": 17, "same-b": 10**15 + 1}
        here, there = MemoryBook(openings), RedisBook(redis_url, openings)
        chance = random.Random(7)
        holds = [f"r{number}" for number in range(6)]
        for _ in range(300):
            some = chance.sample(pots, chance.randint(1, 3))
            hold, units = chance.choice(holds), chance.randint(0, 30)
            if chance.random() < 0.6:
                assert await here.reserve(some, hold, units, 600) == await there.reserve(some, hold, units, 600)
            else:
                await here.settle(some, hold, units // 3)
                await there.settle(some, hold, units // 3)
            assert await here.standings(pots) == await there.standings(pots)
        await there.close()

    asyncio.run(main())


def test_sums_are_exact_to_the_last_unit(redis_url: str) -> None:
    async def main() -> None:
        book, pot = RedisBook(redis_url), Pot(key="exact", limit=2**62, ends=NEVER)
        await book.settle([pot], "one", 2**53)
        for _ in range(3):
            await book.settle([pot], "one", 1)
        assert (await book.standings([pot]))[0].spent == 2**53 + 3
        await book.close()

    asyncio.run(main())


def test_what_a_dead_server_has_set_aside_comes_back(redis_url: str) -> None:
    async def main() -> None:
        dead, alive, pot = RedisBook(redis_url), RedisBook(redis_url), Pot(key="dead", limit=10, ends=NEVER)
        assert await dead.reserve([pot], "lost", 10, 0.2) is None
        await dead.close()
        assert await alive.reserve([pot], "next", 10, 60) == Lack(number=0, outstanding=True)
        await asyncio.sleep(0.3)
        assert await alive.reserve([pot], "next", 10, 60) is None
        # A request that settles after its time is over takes nothing from the others.
        await alive.settle([pot], "lost", 1)
        assert [(one.spent, one.reserved) for one in await alive.standings([pot])] == [(1, 10)]
        await alive.close()

    asyncio.run(main())


def test_pots_are_forgotten_some_time_after_their_period(redis_url: str) -> None:
    import redis

    async def main() -> None:
        book, pot = RedisBook(redis_url), Pot(key="over", limit=10, ends=1e9)
        await book.reserve([pot], "one", 1, 60)
        assert (await book.standings([pot]))[0].reserved == 0
        kept = Pot(key="kept", limit=10, ends=NEVER)
        await book.reserve([kept], "one", 1, 60)
        await book.close()
        with redis.Redis.from_url(redis_url) as client:
            names = [name.decode() for name in client.scan_iter("foreword:*kept*")]
            assert len(names) == 2 and all(client.ttl(name) > 0 for name in names)

    asyncio.run(main())


def shared(url: str, fake_url: str, **budget: Any) -> dict[str, Any]:
    return {
        "models": {"strong": {"url": fake_url, "model": "gpt", "price": PRICE}},
        "stages": STAGES,
        "tasks": {"default": {}},
        "budgets": [{"period": "month", "degrade_at": 1.0, **budget}],
        "store": {"redis": url},
    }


def test_servers_share_a_budget(redis_url: str) -> None:
    took = {"prompt_tokens": 1, "completion_tokens": 3, "total_tokens": 4}
    with upstream(after_seconds(0.02, answer("a", usage=took))) as fake, ExitStack() as servers:
        settings = shared(redis_url, fake.url, amount=100, tenant="everybody", period="week")
        paths = [servers.enter_context(serving_path(settings)) for _ in range(2)]
        with ThreadPoolExecutor(64) as pool:
            answers = list(pool.map(lambda number: paths[number % 2].ask(max_tokens=3), range(64)))
        assert sorted(response.status_code for response in answers) == [200] * 33 + [429] * 31
        entries = [entry for path in paths for entry in path.entries()]
        assert sum(entry["amount"] for entry in entries) == Decimal(99)
        assert all(any(entry["status"] == "answered" for entry in path.entries()) for path in paths)


def test_a_request_waits_for_what_another_server_sets_free(redis_url: str) -> None:
    took = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
    with upstream(after_seconds(0.2, answer("a", usage=took))) as fake, ExitStack() as servers:
        settings = shared(redis_url, fake.url, amount=12, task="default", queue_seconds=20)
        paths = [servers.enter_context(serving_path(settings)) for _ in range(2)]
        with ThreadPoolExecutor(2) as pool:
            answers = list(pool.map(lambda path: path.ask(max_tokens=10), paths))
        assert [response.status_code for response in answers] == [200, 200]
        assert sum("foreword-queued" in response.headers for response in answers) == 1


def test_without_its_redis_a_budget_lets_nothing_through(caplog: pytest.LogCaptureFixture) -> None:
    with upstream(answer("a")) as fake, redis_server() as url, serving_path(shared(url, fake.url, amount=100)) as path:
        assert path.ask(max_tokens=1).status_code == 200
        gone = shared("redis://127.0.0.1:9/0", fake.url, amount=100)
        with serving_path(gone) as cut_off, caplog.at_level(logging.WARNING):
            refused = cut_off.ask(max_tokens=1)
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "budget_unavailable")
        assert len(fake.seen) == 1 and "Redis does not answer" in caplog.text


def test_a_redis_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"store\.redis"):
        RedisBook("http://127.0.0.1")

    async def main() -> None:
        book = RedisBook("redis://127.0.0.1:9/0")
        with pytest.raises(StoreError):
            await book.standings([Pot(key="a", limit=1, ends=NEVER)])
        await book.close()

    asyncio.run(main())
