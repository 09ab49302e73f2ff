"""The stage alone: whose budgets hold, and what near the end of one a request does without."""

from __future__ import annotations

import asyncio
from typing import Any

from foreword.gateway.budgets import FEWER, LIGHTER, SHORTER, STALE
from foreword.gateway.passage import Passage
from foreword.gateway.stage import Next, make
from walking import close, parts_of, passage_of, settings_of

STAGES = ("intake", "budget", "route", "reserve", "infer", "bill")


def through(tasks: dict[str, Any], budgets: list[dict[str, Any]], body: dict[str, Any] | str = "Hi") -> Passage:
    """A request for `support` behind the stage."""
    settings = settings_of(tasks, budgets=budgets, stages=STAGES)
    parts = parts_of(settings)

    async def run() -> Passage:
        stage = make("budget", parts)
        passage = passage_of(settings, body, task="support")
        assert await stage(passage) is Next.ON
        await close(parts)
        return passage

    return asyncio.run(run())


def test_without_a_budget_nothing_holds() -> None:
    for budgets in ([], [{"amount": 1, "tenant": "ann"}], [{"amount": 1, "task": "default"}]):
        passage = through({"support": {}}, budgets)
        assert passage.hold is None and not passage.afterwards and not passage.told


def test_with_one_the_request_is_settled_afterwards() -> None:
    passage = through({"support": {}}, [{"amount": 1}])
    assert passage.hold is not None and len(passage.afterwards) == 1 and not passage.degraded


def test_near_its_end_every_saving_that_there_is_is_made() -> None:
    task = {
        "tiers": ["big", "big:long"],
        "cache": {"exact": True},
        "assemble": {"history_turns": 8, "passages": {"folder": "texts"}},
    }
    passage = through({"support": task}, [{"amount": 1, "degrade_at": 0.0}])
    assert passage.degraded == [LIGHTER, FEWER, SHORTER, STALE]
    assert passage.told["foreword-degraded"] == "lighter tier, fewer passages, shorter history, stale cache"


def test_a_model_that_was_asked_for_by_name_stays() -> None:
    task = {"tiers": ["big", "big:long"], "cache": {"exact": True}}
    body = {"model": "big:long", "messages": [{"role": "user", "content": "Hi"}]}
    assert through({"support": task}, [{"amount": 1, "degrade_at": 0.0}], body).degraded == [STALE]
