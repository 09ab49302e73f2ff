"""Budgets on a served path: many clients at once, what a nearly spent one takes away, what a spent one says, what a restart knows."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from hashlib import sha256
from pathlib import Path
from typing import Any

import openai
import pytest

from foreword.cost.ledger import Entry, Ledger, Line
from foreword.cost.rates import Charge
from foreword.errors import ConfigError
from foreword.gateway.budgets import pot_of
from foreword.gateway.path_settings import BudgetSettings, build_settings
from foreword.gateway.tenants import Keyring, Tenant
from foreword.store.database import open_database
from paths import ServedPath, serving_path
from upstreams import Behaviour, FakeUpstream, after_seconds, answer, cut, drop, endless, hang, refuse, upstream, when

STAGES = ("intake", "guard-in", "budget", "route", "reserve", "infer", "check", "bill")
PRICE = {"input_per_million": "0", "output_per_million": "1000000"}
"""A token of an answer costs 1, a prompt nothing, so that sums can be read."""


def took(tokens: int) -> dict[str, int]:
    return {"prompt_tokens": 9, "completion_tokens": tokens, "total_tokens": 9 + tokens}


@contextmanager
def budgeted(
    *behaviours: Behaviour, amount: int | str, models: dict[str, Any] | None = None, task: dict[str, Any] | None = None, **budget: Any
) -> Iterator[tuple[FakeUpstream, ServedPath]]:
    """A path with one model, `strong`, and one budget."""
    with upstream(*behaviours) as fake:
        strong = {"url": fake.url, "model": "gpt", "price": PRICE, "retries": 0}
        settings = {
            "models": {"strong": strong, **{name: {**strong, **fields} for name, fields in (models or {}).items()}},
            "stages": STAGES,
            "tasks": {"default": {"tiers": ["strong"], **(task or {})}},
            "budgets": [{"amount": amount, "period": "month", "degrade_at": 1.0, **budget}],
        }
        with serving_path(settings) as path:
            yield fake, path


def spent(path: ServedPath) -> Decimal:
    return sum((entry["amount"] for entry in path.entries() if entry["amount"] is not None), Decimal(0))


# Many clients at once.


def test_64_clients_do_not_overshoot() -> None:
    with budgeted(after_seconds(0.02, answer("a b c", usage=took(3))), amount=100) as (fake, path):
        with ThreadPoolExecutor(64) as pool:
            answers = list(pool.map(lambda _: path.ask(max_tokens=3), range(64)))
        codes = sorted(response.status_code for response in answers)
        # Each takes what was set aside for it: 33 times 3 is all that 100 has room for.
        assert codes == [200] * 33 + [429] * 31
        assert spent(path) == 99 and len(fake.seen) == 33


def test_64_clients_that_take_less_than_they_might_all_have_their_turn() -> None:
    with budgeted(after_seconds(0.005, answer("a", usage=took(1))), amount=80, queue_seconds=25) as (_, path):
        with ThreadPoolExecutor(64) as pool:
            answers = list(pool.map(lambda number: path.ask(max_tokens=16, stream=number % 2 == 0), range(64)))
        assert {response.status_code for response in answers} == {200}
        assert spent(path) == 64
        assert any("foreword-queued" in response.headers for response in answers)


def test_what_overshoots_is_what_was_not_set_aside() -> None:
    with budgeted(after_seconds(0.02, answer("a b c", usage=took(5))), amount=100) as (_, path):
        with ThreadPoolExecutor(32) as pool:
            answers = list(pool.map(lambda _: path.ask(max_tokens=3), range(64)))
        answered = sum(response.status_code == 200 for response in answers)
        assert 20 <= answered <= 33
        # A model that says more than it may is paid for, and the next request knows it.
        assert spent(path) == 5 * answered
        assert path.ask(max_tokens=3).status_code == 429


# What a spent budget says.


def test_a_spent_budget_says_when_to_come_back() -> None:
    with budgeted(answer("a", usage=took(10)), amount=12, period="day") as (fake, path):
        assert path.ask(max_tokens=10).status_code == 200
        refused = path.ask(max_tokens=10)
        error = refused.json()["error"]
        assert (refused.status_code, error["code"], error["type"]) == (429, "budget_exceeded", "rate_limit_error")
        assert 1 <= int(refused.headers["retry-after"]) <= 86_400 and "UTC" in error["message"]
        # A shorter answer is still to be had.
        assert path.ask(max_tokens=2).status_code == 200
        assert len(fake.seen) == 2
        assert [entry["status"] for entry in path.entries()] == ["answered", "refused", "answered"]


def test_openais_client_does_not_try_again_by_itself() -> None:
    with budgeted(answer("a", usage=took(1)), amount=5) as (fake, path):
        with path.client(max_retries=3) as client, pytest.raises(openai.RateLimitError) as refused:
            client.chat.completions.create(model="auto", messages=[{"role": "user", "content": "Hi"}], max_tokens=10)
        assert refused.value.code == "budget_exceeded" and "whole budget" in refused.value.message
        assert len(path.entries()) == 1 and not fake.seen


def test_who_cannot_be_helped_by_waiting_does_not_wait() -> None:
    with budgeted(answer("a", usage=took(5)), amount=6, queue_seconds=600) as (_, path):
        assert path.ask(max_tokens=5).status_code == 200
        # Nothing is set aside that could come free, and the month goes on for longer than anybody waits.
        assert path.ask(max_tokens=5).status_code == 429


def test_a_wait_ends_with_the_requests_deadline() -> None:
    go = threading.Event()
    with budgeted(when(go, answer("a", usage=took(5))), amount=6, queue_seconds=600) as (fake, path), ThreadPoolExecutor(1) as pool:
        first = pool.submit(path.ask, max_tokens=5)
        fake.wait_for(1)
        assert path.ask(max_tokens=5, headers={"foreword-deadline": "0.1"}).status_code == 429
        go.set()
        assert first.result().status_code == 200


# Whatever becomes of a request, what was set aside for it comes back.


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("failure", [refuse(500), refuse(400), drop(), cut(events=1)])
def test_a_failure_gives_its_money_back(failure: Behaviour, stream: bool) -> None:
    with budgeted(failure, answer("a", usage=took(1)), amount=1000) as (_, path):
        path.ask(max_tokens=1000, stream=stream)
        assert path.ask(max_tokens=900).status_code == 200


def test_a_deadline_that_passes_gives_its_money_back() -> None:
    with budgeted(hang(), answer("a", usage=took(1)), amount=1000) as (_, path):
        assert path.ask(max_tokens=1000, headers={"foreword-deadline": "0.1"}).status_code == 504
        assert path.ask(max_tokens=900).status_code == 200


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_gives_its_money_back(stream: bool) -> None:
    with budgeted(endless() if stream else hang(), answer("a", usage=took(1)), amount=1000) as (fake, path):
        body = {"model": "auto", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1000, "stream": stream}
        with path.http() as http:
            if stream:
                with http.stream("POST", "/v1/chat/completions", json=body) as response:
                    next(response.iter_lines())
            else:
                with pytest.raises(Exception, match=r"(?i)timed? ?out"):
                    http.post("/v1/chat/completions", json=body, timeout=0.3)
        fake.wait_for_disconnect()
        path.wait_for_entries(1)
        assert path.ask(max_tokens=800).status_code == 200


# Less before nothing.


def test_near_its_end_a_budget_serves_from_the_lighter_tier() -> None:
    labels = {"labels": ["billing", "login"]}
    task = {"tiers": ["strong", "stronger"], "check": labels}
    answers = answer("no label", usage=took(10))
    with budgeted(answers, amount=100, degrade_at=0.3, models={"stronger": {"model": "big"}}, task=task) as (fake, path):
        first, second = path.ask(max_tokens=10), path.ask(max_tokens=10)
        assert first.headers["foreword-escalated"] == "strong" and "foreword-degraded" not in first.headers
        assert "foreword-degraded" not in second.headers
        third = path.ask(max_tokens=10)
        assert third.status_code == 200 and third.headers["foreword-degraded"] == "lighter tier"
        assert "foreword-escalated" not in third.headers and len(fake.seen) == 5
        assert [entry["degraded"] for entry in path.entries()] == ["", "", "lighter tier"]


def test_what_a_request_has_not_got_is_not_taken_away() -> None:
    with budgeted(answer("a", usage=took(1)), amount=100, degrade_at=0.0) as (_, path):
        assert path.ask(max_tokens=1).headers["foreword-degraded"] == "nothing left to leave out"
        assert path.one_entry()["degraded"] == ""


def test_another_answer_is_not_asked_for_where_there_is_no_money_for_it() -> None:
    task = {"tiers": ["strong", "stronger"], "check": {"labels": ["billing", "login"]}}
    for amount, asked in ((15, 1), (20, 2)):
        with budgeted(answer("no", usage=took(10)), amount=amount, models={"stronger": {}}, task=task) as (fake, path):
            response = path.ask(max_tokens=10)
            assert response.status_code == 200 and len(fake.seen) == asked
            assert spent(path) == 10 * asked


def test_a_judge_is_paid_for_by_the_budget() -> None:
    task = {"check": {"judge": "judge", "escalate": False}}
    models = {"judge": {"price": {"input_per_million": "0", "output_per_million": "2000000"}}}
    for amount, asked in ((100, 1), (200, 2)):
        with budgeted(answer("0.5", usage=took(1)), amount=amount, models=models, task=task) as (fake, path):
            response = path.ask(max_tokens=10)
            assert response.status_code == 200 and len(fake.seen) == asked
            if asked == 1:
                assert response.headers["foreword-check"] == "no money for the judge"


# Whose money it is.


def test_a_budget_is_its_tenants_and_its_task_types_alone() -> None:
    keys = Keyring({sha256(f"key-of-{name}".encode()).digest(): Tenant(name=name) for name in ("ann", "bob")})
    with upstream(answer("a", usage=took(10))) as fake:
        settings = {
            "models": {"strong": {"url": fake.url, "model": "gpt", "price": PRICE}},
            "stages": STAGES,
            "tasks": {"default": {}, "support": {}},
            "budgets": [
                {"amount": 20, "tenant": "ann", "degrade_at": 1.0},
                {"amount": 10, "tenant": "ann", "task": "support", "degrade_at": 1.0},
            ],
        }
        with serving_path(settings, keys=keys) as path:

            def ask(name: str, task: str) -> int:
                body = {"model": "auto", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 10}
                with path.http(f"key-of-{name}") as http:
                    return http.post("/v1/chat/completions", json=body, headers={"foreword-task": task}).status_code

            assert [ask("ann", "support"), ask("ann", "support")] == [200, 429]
            # What a request is refused by one budget is not taken from the other.
            assert [ask("ann", "default"), ask("ann", "default")] == [200, 429]
            assert [ask("bob", "support") for _ in range(3)] == [200] * 3


# What a model without a price may do.


def test_a_model_without_a_price_is_refused_under_a_budget() -> None:
    with budgeted(answer("a"), amount=5, models={"free": {"price": None}}) as (fake, path):
        response = path.ask(model="free", max_tokens=1)
        error = response.json()["error"]
        assert (response.status_code, error["code"], error["param"]) == (400, "unpriced_model", "model")
        assert "`free`" in error["message"] and "allow_unpriced" in error["message"] and not fake.seen
    with budgeted(answer("a"), amount=5, models={"free": {"price": None}}, allow_unpriced=True) as (_, path):
        response = path.ask(model="free")
        assert (response.status_code, response.headers["foreword-cost"]) == (200, "unpriced")


# What a restart knows.


def test_after_a_restart_the_accounts_go_on_from_the_ledger(tmp_path: Path) -> None:
    ledger = str(tmp_path / "ledger.sqlite")
    store = {"ledger": ledger}
    for statuses in ([200, 200], [200, 429], [429, 429]):
        with upstream(answer("a", usage=took(10))) as fake:
            settings = {
                "models": {"strong": {"url": fake.url, "model": "gpt", "price": PRICE}},
                "stages": STAGES,
                "budgets": [{"amount": 35, "period": "month", "degrade_at": 1.0}],
                "store": store,
            }
            with serving_path(settings) as path:
                assert [path.ask(max_tokens=10).status_code for _ in range(2)] == statuses


def test_only_what_a_budget_is_for_is_in_its_account(tmp_path: Path) -> None:
    now = datetime.now(UTC)
    entries = (
        ("old", now - timedelta(days=40), "everybody", "support", 100),
        ("elsewhere", now, "everybody", "default", 100),
        ("stranger", now, "ann", "support", 100),
        ("own", now, "everybody", "support", 10),
    )
    book = Ledger(open_database(tmp_path / "ledger.sqlite"))
    for name, at, tenant, task, tokens in entries:
        charge = Charge(meter="output", quantity=Decimal(tokens), rate=Decimal(1))
        unpriced = Line(stage="infer", model="free", charges=None)
        line = Line(stage="infer", model="strong", charges=(charge,))
        book.record(
            Entry(
                id=name,
                at=at,
                tenant=tenant,
                task_type=task,
                asked_model="auto",
                model="strong",
                status="answered",
                seconds=0.1,
                lines=(line, unpriced),
            )
        )
    book.close()
    with upstream(answer("a", usage=took(10))) as fake:
        settings = {
            "models": {"strong": {"url": fake.url, "model": "gpt", "price": PRICE}},
            "stages": STAGES,
            "tasks": {"support": {}},
            "budgets": [{"amount": 20, "period": "month", "tenant": "everybody", "task": "support", "degrade_at": 1.0}],
            "store": {"ledger": str(tmp_path / "ledger.sqlite")},
        }
        with serving_path(settings) as path:
            asked = [path.ask(max_tokens=10, headers={"foreword-task": "support"}).status_code for _ in range(2)]
            assert asked == [200, 429]


def test_no_two_budgets_share_a_pot() -> None:
    at = datetime(2027, 5, 4, tzinfo=UTC)
    keys = {
        pot_of(BudgetSettings(amount=Decimal(1), tenant=tenant, task=task), at).key
        for tenant, task in ((None, None), ("*", None), ("a/b", None), ("a", "b"), (None, "a"), ("a", None))
    }
    assert len(keys) == 6


# What cannot be set up.


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"stages": ("intake", "route", "infer", "bill")}, "needs the stage `budget`"),
        ({"budgets": [{"amount": 1, "task": "suport"}]}, "suport"),
        ({"budgets": [{"amount": 1}, {"amount": 2}]}, "two budgets"),
        ({"budgets": [{"amount": 0}]}, "greater than 0"),
        ({"stages": ("intake", "budget", "reserve", "route", "infer", "bill")}, "`route` must come before `reserve`"),
    ],
)
def test_budgets_that_could_not_hold_are_refused(fields: dict[str, Any], words: str) -> None:
    settings = {"models": {"strong": {"url": "http://127.0.0.1:9/v1", "model": "gpt"}}, "budgets": [{"amount": 1}], "stages": STAGES}
    with pytest.raises(ConfigError, match=words):
        build_settings({**settings, **fields}, source="the test")
