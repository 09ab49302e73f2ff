"""Limits: who is counted with whom, what a client is told, and the same in a real Redis."""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import pairwise
from typing import Any

import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st

from foreword.errors import ConfigError
from foreword.gateway.limits import SWEEP_EVERY, Limits, MemoryWindows, RedisWindows, limits_of, spoken
from foreword.gateway.path_settings import LimitSettings
from paths import serving_path
from redis_servers import NEEDS_REDIS, redis_server
from upstreams import answer, upstream

STAGES = ("intake", "limit", "route", "infer", "bill")


def limited(url: str, *, redis: str | None = None, **limits: str) -> dict[str, Any]:
    models = {"big": {"url": url, "model": "gpt"}}
    store = {} if redis is None else {"redis": redis}
    return {"models": models, "stages": STAGES, "limits": limits, "store": store}


def test_windows_count_from_the_first_request_and_start_anew() -> None:
    async def main() -> None:
        now = [100.0]
        windows = MemoryWindows(clock=lambda: now[0])
        assert [await windows.hit("a", 10) for _ in range(2)] == [(1, 10.0), (2, 10.0)]
        now[0] = 109.0
        assert await windows.hit("a", 10) == (3, 1.0)
        assert await windows.hit("b", 10) == (1, 10.0)
        now[0] = 110.0
        assert await windows.hit("a", 10) == (1, 10.0)

    asyncio.run(main())


def test_windows_that_are_over_are_forgotten() -> None:
    async def main() -> int:
        now = [0.0]
        windows = MemoryWindows(clock=lambda: now[0])
        for number in range(2 * SWEEP_EVERY):
            now[0] = number / 100
            await windows.hit(f"user-{number}", 10)
        return len(windows)

    assert asyncio.run(main()) <= SWEEP_EVERY + 1_001


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 7)), max_size=60), st.integers(1, 5))
def test_no_window_lets_more_through_than_it_may(hits: list[tuple[str, int]], most: int) -> None:
    async def main() -> None:
        now = [0.0]
        windows = MemoryWindows(clock=lambda: now[0])
        passed: dict[str, list[float]] = {}
        begun: dict[str, list[float]] = {}
        for key, pause in hits:
            now[0] += pause
            count, resets = await windows.hit(key, 10)
            assert 0 < resets <= 10
            if count == 1:
                begun.setdefault(key, []).append(now[0])
            if count <= most:
                passed.setdefault(key, []).append(now[0])
        for times in passed.values():
            # Two windows may lie side by side within the length of one.
            assert all(sum(start <= time < start + 10 for time in times) <= 2 * most for start in times)
        assert all(later - sooner >= 10 for times in begun.values() for sooner, later in pairwise(times))

    asyncio.run(main())


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.1, "100ms"), (1, "1s"), (59.2, "1m0s"), (360, "6m0s"), (3_600, "1h0m0s"), (86_399, "23h59m59s")]
)
def test_times_are_written_as_openai_does(seconds: float, words: str) -> None:
    assert spoken(seconds) == words


def test_a_user_who_has_sent_too_much_is_told_when_to_come_back() -> None:
    with upstream(answer("a")) as fake, serving_path(limited(fake.url, per_user="2/hour")) as path:
        first, second, third = (path.ask(user="ann") for _ in range(3))
        assert [first.headers["x-ratelimit-remaining-requests"], second.headers["x-ratelimit-remaining-requests"]] == ["1", "0"]
        assert first.headers["x-ratelimit-limit-requests"] == "2"
        assert first.headers["x-ratelimit-reset-requests"] in ("1h0m0s", "59m59s", "60m0s")
        error = third.json()["error"]
        assert (third.status_code, error["code"], error["type"]) == (429, "rate_limit_exceeded", "rate_limit_error")
        assert 3_500 < int(third.headers["retry-after"]) <= 3_600 and third.headers["x-ratelimit-remaining-requests"] == "0"
        # Others are others, by the body or by the header; and nobody in particular is somebody of their own.
        assert [path.ask(user="bob").status_code, path.ask(headers={"foreword-user": "cem"}).status_code] == [200, 200]
        assert [path.ask().status_code for _ in range(3)] == [200, 200, 429]
        assert len(fake.seen) == 6


def test_openais_client_sees_a_rate_limit_error() -> None:
    with upstream(answer("a")) as fake, serving_path(limited(fake.url, per_tenant="1/day")) as path, path.client() as client:
        ask = client.chat.completions.create
        assert ask(model="auto", messages=[{"role": "user", "content": "Hi"}]).choices[0].message.content == "a"
        with pytest.raises(openai.RateLimitError) as refused:
            ask(model="auto", messages=[{"role": "user", "content": "Hi"}])
        assert refused.value.code == "rate_limit_exceeded" and refused.value.response.headers["retry-after"].isdecimal()


def test_a_user_who_is_refused_uses_up_nothing_of_the_tenants() -> None:
    with upstream(answer("a")) as fake, serving_path(limited(fake.url, per_user="1/hour", per_tenant="3/hour")) as path:
        assert [path.ask(user="ann").status_code for _ in range(5)] == [200, 429, 429, 429, 429]
        assert [path.ask(user=name).status_code for name in ("bob", "cem", "dua")] == [200, 200, 429]


def test_several_limits_hold_together() -> None:
    with upstream(answer("a")) as fake, serving_path(limited(fake.url, per_user="5/hour;2/minute")) as path:
        answers = [path.ask(user="ann") for _ in range(3)]
        assert [response.status_code for response in answers] == [200, 200, 429]
        assert int(answers[-1].headers["retry-after"]) <= 60
        assert answers[0].headers["x-ratelimit-limit-requests"] == "2"


def test_many_at_once_are_counted_one_by_one() -> None:
    with upstream(answer("a")) as fake, serving_path(limited(fake.url, per_tenant="20/hour")) as path:
        with ThreadPoolExecutor(32) as pool:
            codes = list(pool.map(lambda _: path.ask().status_code, range(64)))
        assert sorted(codes) == [200] * 20 + [429] * 44


@pytest.mark.parametrize("given", ["many", "5", "0/second", "5/fortnight"])
def test_a_limit_that_cannot_be_read_is_refused(given: str) -> None:
    with pytest.raises(ConfigError, match="per_user"):
        limits_of(LimitSettings(per_user=given), None)


def test_without_limits_nobody_is_counted() -> None:
    assert limits_of(LimitSettings(), None) is None


def test_no_name_can_be_read_as_two() -> None:
    async def main() -> list[int]:
        from foreword.gateway.errors import Refusal
        from foreword.gateway.tenants import Tenant
        from walking import passage_of, settings_of

        limits, codes = Limits(LimitSettings(per_user="1/hour"), MemoryWindows()), []
        for tenant, user in (("a", "b/c"), ("a/b", "c"), ("a%2Fb", "c")):
            passage = passage_of(settings_of(), "Hi", tenant=Tenant(name=tenant))
            passage.user = user
            try:
                await limits.count(passage)
                codes.append(200)
            except Refusal as refusal:
                codes.append(refusal.status)
        return codes

    assert asyncio.run(main()) == [200, 200, 200]


@NEEDS_REDIS
def test_servers_share_their_limits_in_redis() -> None:
    with redis_server() as redis, upstream(answer("a")) as fake, ExitStack() as servers:
        settings = limited(fake.url, redis=redis, per_user="20/hour")
        paths = [servers.enter_context(serving_path(settings)) for _ in range(2)]
        with ThreadPoolExecutor(16) as pool:
            answers = list(pool.map(lambda number: paths[number % 2].ask(user="ann"), range(40)))
        assert sorted(response.status_code for response in answers) == [200] * 20 + [429] * 20
        refused = next(response for response in answers if response.status_code == 429)
        assert 3_500 < int(refused.headers["retry-after"]) <= 3_600


def test_while_redis_is_away_every_server_counts_for_itself(caplog: pytest.LogCaptureFixture) -> None:
    settings = limited("", redis="redis://127.0.0.1:9/0", per_user="2/hour")
    with upstream(answer("a")) as fake, caplog.at_level(logging.WARNING):
        settings["models"]["big"]["url"] = fake.url
        with serving_path(settings) as path:
            assert [path.ask().status_code for _ in range(3)] == [200, 200, 429]
    assert sum("counted by this server alone" in record.message for record in caplog.records) == 1


def test_a_redis_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"store\.redis"):
        RedisWindows("redis://127.0.0.1:port")
