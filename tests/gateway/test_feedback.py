"""Feedback over a real socket: whose word counts, and how much."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from foreword.cost.report import CostRow, cost_report
from foreword.gateway.tenants import parse_keys
from paths import BARE, ServedPath, serving_path
from upstreams import FakeUpstream, answer, upstream

ANNA, BEN = "anna-key-1", "ben-key-123"
HI = [{"role": "user", "content": "Hi."}]
PRICE = {"input_per_million": "1", "output_per_million": "2"}


@pytest.fixture
def fake() -> Iterator[FakeUpstream]:
    with upstream(answer("Hello.")) as fake:
        yield fake


@pytest.fixture
def path(fake: FakeUpstream) -> Iterator[ServedPath]:
    settings = {"models": {"big": {"url": fake.url, "model": "m", "price": PRICE}}, "stages": list(BARE)}
    with serving_path(settings, keys=parse_keys(f"{ANNA} anna\n{BEN} ben", source="the test")) as path:
        yield path


def say(path: ServedPath, key: str | None, body: Any, status: int = 200) -> Any:
    with path.http(key) as http:
        got = http.post("/v1/feedback", json=body)
    assert got.status_code == status, got.text
    return got.json()


def ask(path: ServedPath, key: str, **options: Any) -> str:
    got = path.client(key).chat.completions.create(model="auto", messages=HI, **options)
    return {chunk.id for chunk in got}.pop() if options.get("stream") else got.id


def report(path: ServedPath) -> dict[str, CostRow]:
    assert path.database is not None
    path.entries()
    return {row.group[0]: row for row in cost_report(path.database, ("tenant",))}


def test_the_last_word_of_whoever_asked_counts(path: ServedPath) -> None:
    first, second = ask(path, ANNA), ask(path, ANNA, stream=True)
    assert report(path)["anna"].judged == 0
    assert say(path, ANNA, {"id": first, "success": False}) == {"id": first, "object": "feedback"}
    say(path, ANNA, {"id": first, "success": True})
    say(path, ANNA, {"id": second, "success": False})
    row = report(path)["anna"]
    assert (row.requests, row.judged, row.successes) == (2, 2, 1)
    assert row.cost is not None and row.cost_per_success == row.cost


def test_nobody_elses_word_counts_and_nobody_learns_whose_an_answer_is(path: ServedPath) -> None:
    id = ask(path, ANNA)
    told = say(path, BEN, {"id": id, "success": False})
    unknown = say(path, BEN, {"id": "chatcmpl-nobodys", "success": False})
    assert set(told) == set(unknown)
    assert report(path)["anna"].judged == 0 and "ben" not in report(path)
    say(path, ANNA, {"id": id, "success": True})
    say(path, BEN, {"id": id, "success": False})
    assert report(path)["anna"].successes == 1


def test_feedback_may_come_before_the_entry_is_on_the_disk(path: ServedPath) -> None:
    ids = [ask(path, BEN) for _ in range(10)]
    for id in ids:
        say(path, BEN, {"id": id, "success": True})
    assert (report(path)["ben"].requests, report(path)["ben"].successes) == (10, 10)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, None),
        ({"id": "x"}, None),
        ({"id": "", "success": True}, "id"),
        ({"id": "x" * 65, "success": True}, "id"),
        ({"id": 7, "success": True}, "id"),
        ({"id": "x", "success": "yes"}, "success"),
        ({"id": "x", "success": 1}, "success"),
        ({"id": "x", "success": True, "tenant": "anna"}, "tenant"),
        ([], None),
    ],
)
def test_what_cannot_be_feedback_is_refused(path: ServedPath, body: Any, param: str | None) -> None:
    assert say(path, ANNA, body, 400)["error"]["param"] == param


def test_feedback_is_asked_for_its_key_and_its_form(path: ServedPath) -> None:
    say(path, None, {"id": "x", "success": True}, 401)
    with path.http(ANNA) as http:
        sent = ((b"{", "application/json", 400), (b"{}", "text/plain", 415), (b"x" * 20_000, "application/json", 413))
        for content, kind, status in sent:
            got = http.post("/v1/feedback", content=content, headers={"content-type": kind})
            assert got.status_code == status and got.json()["error"]["message"]


def test_without_a_ledger_there_is_nothing_to_say(fake: FakeUpstream) -> None:
    settings = {"models": {"big": {"url": fake.url, "model": "m"}}, "store": {"ledger": "none"}}
    with serving_path(settings) as path:
        assert say(path, None, {"id": "x", "success": True}, 404)["error"]["code"] == "no_ledger"
