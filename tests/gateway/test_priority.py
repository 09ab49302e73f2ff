"""Where a model's places are taken, the more urgent requests go first, whatever came first; on a served path."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

from paths import BARE, serving_path
from upstreams import answer, upstream, when

SETTLES = 0.5
"""Seconds for a request to have come into the queue, on a busy machine too."""


def test_urgent_requests_go_before_those_that_came_sooner() -> None:
    release = threading.Event()
    with upstream(when(release, answer("a"))) as fake:
        settings = {
            "models": {"big": {"url": fake.url, "model": "gpt", "at_once": 1}},
            "stages": BARE,
            "tasks": {"default": {}, "urgent": {"priority": 5}},
        }
        with serving_path(settings) as path, ThreadPoolExecutor(4) as pool:
            asked = [pool.submit(path.ask, "first")]
            fake.wait_for(1)
            for text, headers in (
                ("batch", {"foreword-priority": "-5"}),
                ("usual", {}),
                ("urgent", {"foreword-task": "urgent"}),
            ):
                asked.append(pool.submit(path.ask, text, headers=headers))
                threading.Event().wait(SETTLES)
            release.set()
            assert {one.result().status_code for one in asked} == {200}
        assert [seen.body["messages"][0]["content"] for seen in fake.seen] == ["first", "urgent", "usual", "batch"]


def test_a_request_whose_time_is_up_leaves_the_queue_with_504() -> None:
    release = threading.Event()
    with upstream(when(release, answer("a"))) as fake:
        settings = {"models": {"big": {"url": fake.url, "model": "gpt", "at_once": 1}}, "stages": BARE}
        with serving_path(settings) as path, ThreadPoolExecutor(1) as pool:
            first = pool.submit(path.ask, "first")
            fake.wait_for(1)
            assert path.ask("late", headers={"foreword-deadline": "0.1"}).status_code == 504
            release.set()
            assert first.result().status_code == 200
        assert len(fake.seen) == 1
