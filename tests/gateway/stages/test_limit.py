"""The stage alone: it counts where there are limits, and lets everything through where there are none."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from foreword.errors import ConfigError
from foreword.gateway.errors import Refusal
from foreword.gateway.path_settings import build_settings
from foreword.gateway.stage import ORDER, Next, make
from walking import close, parts_of, passage_of, settings_of


def through(times: int, **fields: Any) -> list[int]:
    """The status of so many requests in a row, 200 where a request goes on."""
    settings = settings_of(stages=("intake", "limit", "route", "infer", "bill"), **fields)
    parts = parts_of(settings)

    async def main() -> list[int]:
        stage, statuses = make("limit", parts), []
        for _ in range(times):
            passage = passage_of(settings, "Hi")
            try:
                assert await stage(passage) is Next.ON
                statuses.append(200)
            except Refusal as refusal:
                statuses.append(refusal.status)
            assert bool(passage.told) is bool(fields)
        await close(parts)
        return statuses

    return asyncio.run(main())


def test_requests_are_counted_where_there_are_limits() -> None:
    assert through(3) == [200] * 3
    assert through(3, limits={"per_tenant": "2/day"}) == [200, 200, 429]


def test_a_limit_without_its_stage_is_refused() -> None:
    models = {"big": {"url": "http://127.0.0.1:9/v1", "model": "big"}}
    stages = tuple(name for name in ORDER if name != "limit")
    with pytest.raises(ConfigError, match="needs the stage `limit`"):
        build_settings({"models": models, "stages": stages, "limits": {"per_user": "1/day"}}, source="the test")


def test_whose_request_it_is_is_known_before_it_is_counted() -> None:
    models = {"big": {"url": "http://127.0.0.1:9/v1", "model": "big"}}
    with pytest.raises(ConfigError, match="`intake` must come before `limit`"):
        build_settings({"models": models, "stages": ("limit", "intake", "route", "infer", "bill")}, source="the test")
