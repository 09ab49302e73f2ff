"""Answers in a real Redis: for one tenant only, for as long as they may be, and never in the way."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from foreword.gateway.cache.exact import CachedAnswer, Selection
from foreword.gateway.cache.shared import RedisStore
from redis_servers import NEEDS_REDIS, redis_server

pytest.importorskip("redis", reason="the package redis is not installed")
ANSWER = CachedAnswer(
    tenant="acme", body=b"{}", model="small:support", created=1_000.0, ttl=60.0, prefix_versions=("support@v3",), prompt_version="desk@v1",
    tags=frozenset({"prices"}),
)  # fmt: skip


@pytest.fixture(scope="module")
def url():
    with redis_server() as url:
        yield url


def on(url: str, work, *, now: float = 1_010.0):
    async def main():
        store = RedisStore.at(url, keep_stale=600.0)
        store._clock = lambda: now
        try:
            await store._client.flushdb()
            return await work(store)
        finally:
            await store.close()

    return asyncio.run(main())


@NEEDS_REDIS
def test_what_is_put_is_got_as_it_was(url):
    async def work(store):
        await store.put("key", ANSWER)
        return await store.get("key", tenant="acme")

    found = on(url, work)
    assert found.answer == ANSWER
    assert (found.age, found.stale) == (10.0, False)


@NEEDS_REDIS
@pytest.mark.parametrize("other", ["rival", "acme:key", "*", "acm?", ""])
def test_no_other_tenant_gets_it(url, other):
    async def work(store):
        await store.put("key", ANSWER)
        return await store.get("key", tenant=other), await store.get("", tenant=other)

    assert on(url, work) == (None, None)


@NEEDS_REDIS
def test_one_past_its_time_is_only_for_those_who_take_a_stale_one(url):
    async def work(store):
        await store.put("key", ANSWER)
        return await store.get("key", tenant="acme"), await store.get("key", tenant="acme", stale=True)

    fresh, stale = on(url, work, now=1_100.0)
    assert fresh is None
    assert stale is not None and stale.stale


@NEEDS_REDIS
@pytest.mark.parametrize(
    ("selection", "left"),
    [
        (Selection(tag="prices"), 1),
        (Selection(tenant="acme", model="small:support"), 1),
        (Selection(tenant="*", model="small:support"), 2),
        (Selection(prefix_version="support@v3"), 1),
        (Selection(prompt_version="desk@v2"), 2),
    ],
    ids=lambda value: repr(value)[:60],
)
def test_invalidation(url, selection, left):
    async def work(store):
        await store.put("one", ANSWER)
        await store.put("two", replace(ANSWER, tags=frozenset(), model="big", prefix_versions=(), prompt_version=None))
        await store.invalidate(selection)
        return [await store.get(key, tenant="acme") for key in ("one", "two")]

    assert sum(found is not None for found in on(url, work)) == left


@NEEDS_REDIS
def test_something_that_is_no_answer_is_left_alone(url, caplog):
    async def work(store):
        await store.put("key", ANSWER)
        (name,) = [name async for name in store._client.scan_iter()]
        await store._client.set(name, b"secret garbage")
        return await store.get("key", tenant="acme"), await store.invalidate(Selection(tenant="acme"))

    assert on(url, work) == (None, 0)
    assert "secret" not in caplog.text


def test_a_redis_that_is_not_there_is_a_miss_and_told(caplog):
    async def main():
        store = RedisStore.at("redis://127.0.0.1:1/0")
        try:
            await store.put("key", ANSWER)
            return await store.get("key", tenant="acme")
        finally:
            await store.close()

    assert asyncio.run(main()) is None
    assert "did not answer" in caplog.text
