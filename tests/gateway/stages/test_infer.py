"""The stage as a client meets it: what it answers, what it says of how it came to answer, and what the ledger has of it."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from decimal import Decimal
from typing import Any

import openai
import pytest

from paths import BARE, ServedPath, charges_of, serving_path
from upstreams import (
    RICH_USAGE,
    Behaviour,
    FakeUpstream,
    answer,
    cut,
    drop,
    endless,
    error_event,
    garbage,
    half,
    hang,
    redirect,
    refuse,
    upstream,
    when,
)

PRICE = {"input_per_million": "1", "output_per_million": "2", "cached_per_million": "0.5"}
IN, OUT = Decimal("0.000001"), Decimal("0.000002")
NOW = {"retry-after": "0"}
"""So that a test does not wait."""


def model(fake: FakeUpstream, **fields: Any) -> dict[str, Any]:
    return {"url": fake.url, "model": "gpt", "price": PRICE, **fields}


@contextmanager
def one(*behaviours: Behaviour, task: dict[str, Any] | None = None, **fields: Any) -> Iterator[tuple[FakeUpstream, ServedPath]]:
    """A path with one model, `strong`."""
    settings = {"models": {}, "stages": BARE, "tasks": {"default": {"tiers": ["strong"], **(task or {})}}}
    with upstream(*behaviours) as fake:
        settings["models"] = {"strong": model(fake, **fields)}
        with serving_path(settings) as path:
            yield fake, path


@contextmanager
def two(
    *, strong: tuple[Behaviour, ...], backup: tuple[Behaviour, ...] = (answer("From the backup."),), **fields: Any
) -> Iterator[tuple[FakeUpstream, FakeUpstream, ServedPath]]:
    """A path with `strong`, whose secondary is `backup`."""
    with upstream(*strong) as first, upstream(*backup) as second:
        settings = {
            "models": {"strong": model(first, secondary="backup", **fields), "backup": model(second)},
            "stages": BARE,
            "tasks": {"default": {"tiers": ["strong"]}},
        }
        with serving_path(settings) as path:
            yield first, second, path


def text_of(response: Any) -> str:
    """The words of a whole or streamed answer."""
    if "event-stream" not in response.headers["content-type"]:
        return response.json()["choices"][0]["message"]["content"]
    chunks = [json.loads(line[6:]) for line in response.text.splitlines() if line.startswith("data: {")]
    return "".join(choice["delta"].get("content") or "" for chunk in chunks for choice in chunk.get("choices", []))


BOTH = pytest.mark.parametrize("stream", [False, True])


# Answers.


@BOTH
def test_one_call_is_one_attempt(stream: bool) -> None:
    with one() as (_, path):
        response = path.ask(stream=stream)
        entry = path.one_entry()
    assert text_of(response) == "Hello there, friend."
    assert (response.headers["foreword-attempts"], response.headers["foreword-model"]) == ("1", "strong")
    assert "foreword-tried" not in response.headers
    assert "foreword-fallback" not in response.headers
    assert (entry["retries"], entry["fallbacks"], entry["model"], entry["status"]) == (0, 0, "strong", "answered")


def test_streamed_and_whole_cost_the_same_to_the_last_digit() -> None:
    with one(answer(usage=RICH_USAGE)) as (_, path):
        whole = path.ask()
        streamed = path.ask(stream=True)
        entries = path.entries()
    assert entries[0]["amount"] == entries[1]["amount"] == 200 * IN + 1000 * IN / 2 + 80 * OUT
    assert charges_of(entries[0]) == charges_of(entries[1])
    assert [charge["priced_by"] for entry in entries for charge in entry["charges"]] == ["own"] * 6
    assert f": foreword-cost {whole.headers['foreword-cost']}\n" in streamed.text


def test_the_official_client_streams() -> None:
    with one() as (_, path), path.client() as client:
        chunks = client.chat.completions.create(model="strong", messages=[{"role": "user", "content": "Hi"}], stream=True)
        said = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert said == "Hello there, friend."


def test_pieces_are_passed_on_as_they_come() -> None:
    with one(endless(words=3)) as (_, path), path.client() as client:
        chunks = client.chat.completions.create(model="strong", messages=[{"role": "user", "content": "Hi"}], stream=True)
        # The fake says three words and then nothing for an hour.
        assert [next(chunks).choices[0].delta.content for _ in range(3)] == ["word0 ", "word1 ", "word2 "]
        chunks.close()


@BOTH
def test_no_usage_is_estimated_and_never_free(stream: bool) -> None:
    with one(answer("x" * 40, usage=None)) as (_, path):
        path.ask("y" * 40, stream=stream)
        entry = path.one_entry()
    assert charges_of(entry) == {"input": (14.0, 14 * IN), "output": (10.0, 10 * OUT)}
    assert {charge["priced_by"] for charge in entry["charges"]} == {"own (estimated)"}


# Second tries.


@BOTH
@pytest.mark.parametrize("fault", [refuse(429, headers=NOW), refuse(503, headers=NOW), drop(), garbage(), half(events=0)])
def test_what_failed_before_it_began_is_tried_again(fault: Behaviour, stream: bool) -> None:
    with one(fault, answer()) as (fake, path):
        response = path.ask(stream=stream)
        entry = path.one_entry()
    assert response.status_code == 200
    assert text_of(response) == "Hello there, friend."
    assert len(fake.seen) == 2
    assert response.headers["foreword-attempts"] == "2"
    last = "strong streams" if stream else "strong retry answered"
    assert response.headers["foreword-tried"].endswith(f", {last}")
    assert (entry["retries"], entry["fallbacks"]) == (1, 0)


def test_a_try_without_retry_after_waits_by_itself() -> None:
    with one(refuse(429), refuse(500), answer()) as (fake, path):
        assert path.ask().headers["foreword-attempts"] == "3"
    assert len(fake.seen) == 3


def test_tries_come_to_an_end() -> None:
    with one(refuse(503, headers=NOW), retries=2) as (fake, path):
        response = path.ask()
        entry = path.one_entry()
    assert len(fake.seen) == 3
    assert response.status_code == 503
    assert response.headers["retry-after"] == "1"
    assert response.headers["foreword-tried"] == "strong first unavailable, strong retry unavailable, strong retry unavailable"
    assert (entry["status"], entry["retries"], entry["amount"], entry["charges"]) == ("failed", 2, Decimal(0), [])


def test_a_wait_longer_than_the_deadline_is_told_to_the_client() -> None:
    with one(refuse(429, headers={"retry-after": "60"}), task={"seconds": 20.0}) as (fake, path):
        response = path.ask()
    assert len(fake.seen) == 1
    assert (response.status_code, response.headers["retry-after"]) == (503, "60")
    assert response.json()["error"]["code"] == "upstream_busy"
    assert "60 seconds" in response.json()["error"]["message"]


def test_retries_are_a_share_of_all_calls() -> None:
    with one(refuse(503, headers=NOW), retries=10, retry_budget=0.01, breaker_failures=1000) as (fake, path):
        for _ in range(5):
            path.ask()
    # Five first calls, and the ten retries that a full budget holds.
    assert len(fake.seen) == 15


def test_a_retry_budget_of_nothing_allows_none() -> None:
    with one(refuse(503, headers=NOW), retry_budget=0.0) as (fake, path):
        path.ask()
    assert len(fake.seen) == 1


@BOTH
def test_what_the_model_says_of_the_request_is_final(stream: bool) -> None:
    with two(strong=(refuse(400, "`temperature` is too high for this model."),)) as (first, second, path):
        response = path.ask(stream=stream)
        entry = path.one_entry()
    assert (response.status_code, response.json()["error"]["message"]) == (400, "`temperature` is too high for this model.")
    assert (len(first.seen), len(second.seen)) == (1, 0)
    assert (entry["status"], entry["amount"]) == ("refused", Decimal(0))


# Other models.


@BOTH
def test_the_secondary_stands_in(stream: bool) -> None:
    with two(strong=(refuse(500, headers=NOW),), retries=1) as (first, second, path):
        response = path.ask(stream=stream)
        entry = path.one_entry()
    assert text_of(response) == "From the backup."
    assert (len(first.seen), len(second.seen)) == (2, 1)
    assert response.headers["foreword-fallback"] == "strong->backup"
    assert (response.headers["foreword-model"], response.headers["foreword-attempts"]) == ("backup", "3")
    assert (entry["model"], entry["asked_model"], entry["retries"], entry["fallbacks"]) == ("backup", "auto", 1, 1)


def test_a_long_wait_is_left_for_the_secondary() -> None:
    with two(strong=(refuse(429, headers={"retry-after": "30"}),)) as (first, _, path):
        assert text_of(path.ask()) == "From the backup."
    assert len(first.seen) == 1


@pytest.mark.parametrize("fault", [refuse(401, "Incorrect API key sk-real-0123456789abcdef."), redirect("http://127.0.0.1:9/v1")])
def test_what_is_wrong_with_the_settings_goes_to_the_secondary_at_once(fault: Behaviour) -> None:
    with two(strong=(fault,)) as (first, _, path):
        assert text_of(path.ask()) == "From the backup."
    assert len(first.seen) == 1


def test_the_next_tier_stands_in_where_there_is_no_secondary() -> None:
    with upstream(drop()) as first, upstream(answer("From above.")) as second:
        settings = {
            "models": {"small": model(first, retries=0), "strong": model(second)},
            "stages": BARE,
            "tasks": {"default": {"tiers": ["small", "strong"]}},
        }
        with serving_path(settings) as path:
            response = path.ask()
    assert text_of(response) == "From above."
    assert response.headers["foreword-fallback"] == "small->strong"


def test_secondaries_in_a_circle_are_asked_once_each() -> None:
    with upstream(drop()) as first, upstream(drop()) as second:
        settings = {
            "models": {"a": model(first, retries=0, secondary="b"), "b": model(second, retries=0, secondary="a")},
            "stages": BARE,
            "tasks": {"default": {"tiers": ["a"]}},
        }
        with serving_path(settings) as path:
            response = path.ask()
            entry = path.one_entry()
    assert (response.status_code, response.json()["error"]["code"]) == (502, "upstream_failed")
    assert (len(first.seen), len(second.seen)) == (1, 1)
    assert (entry["fallbacks"], entry["status"]) == (1, "failed")


def test_401_is_never_passed_on() -> None:
    with one(refuse(401, "Incorrect API key provided: sk-real-0123456789abcdef.")) as (_, path):
        response = path.ask()
    assert response.status_code == 502
    assert "key" not in response.text.lower()
    assert "401" not in response.text


# Circuits.


def test_a_model_that_keeps_failing_is_left_alone_and_found_again() -> None:
    fields = {"retries": 0, "breaker_failures": 3, "breaker_seconds": 0.3}
    with two(strong=(refuse(500),), **fields) as (first, _, path):
        told = [path.ask().headers["foreword-tried"] for _ in range(5)]
        assert len(first.seen) == 3
        assert told[2] == "strong first unavailable, backup fallback answered"
        assert told[3] == told[4] == "strong first open-circuit, backup fallback answered"
        first.script(answer("Back again."))
        threading.Event().wait(0.4)
        assert [text_of(path.ask()) for _ in range(2)] == ["Back again."] * 2
    assert len(first.seen) == 5


def test_an_open_circuit_says_when_to_come_again() -> None:
    with one(refuse(500), retries=0, breaker_failures=1, breaker_seconds=60.0) as (fake, path):
        path.ask()
        response = path.ask()
    assert len(fake.seen) == 1
    assert response.status_code == 503
    assert 1 <= int(response.headers["retry-after"]) <= 60
    assert response.headers["foreword-tried"] == "strong first open-circuit"


def test_only_one_call_finds_out_whether_a_model_is_back() -> None:
    release = threading.Event()
    with two(strong=(refuse(500), when(release, answer("Back."))), retries=0, breaker_failures=1, breaker_seconds=0.05) as (first, _, path):
        path.ask()
        threading.Event().wait(0.2)
        with ThreadPoolExecutor(4) as pool:
            asked = [pool.submit(path.ask)]
            first.wait_for(2)
            asked += [pool.submit(path.ask) for _ in range(3)]
            others = [text_of(call.result()) for call in asked[1:]]
            release.set()
            assert text_of(asked[0].result()) == "Back."
    assert others == ["From the backup."] * 3
    assert len(first.seen) == 2


def test_requests_that_are_wrong_open_no_circuit() -> None:
    with one(refuse(400, "No."), breaker_failures=2) as (fake, path):
        assert [path.ask().status_code for _ in range(4)] == [400] * 4
    assert len(fake.seen) == 4


# Second calls beside the first.


@BOTH
def test_the_faster_of_two_calls_answers_and_the_other_hangs_up(stream: bool) -> None:
    with one(hang(), answer("The second."), hedge_seconds=0.05) as (fake, path):
        response = path.ask(stream=stream)
        fake.wait_for_disconnect(0)
        entry = path.one_entry()
    assert text_of(response) == "The second."
    assert len(fake.seen) == 2
    last = "strong streams" if stream else "strong hedge answered"
    # Which of both is recorded first depends on which ends first.
    assert set(response.headers["foreword-tried"].split(", ")) == {"strong first cancelled", last}
    assert (entry["retries"], entry["fallbacks"]) == (0, 0)
    # What the first one read is paid for as well.
    assert {charge["priced_by"] for charge in entry["charges"]} == {"own", "own (estimated)"}


@BOTH
def test_a_second_call_goes_to_the_secondary(stream: bool) -> None:
    with two(strong=(hang(),), hedge_seconds=0.05) as (first, _, path):
        response = path.ask(stream=stream)
        first.wait_for_disconnect()
        entry = path.one_entry()
    assert text_of(response) == "From the backup."
    assert response.headers["foreword-model"] == entry["model"] == "backup"
    assert response.headers["foreword-fallback"] == "strong->backup"


def test_no_second_call_is_sent_where_the_first_is_fast() -> None:
    with two(strong=(answer("Fast."),), hedge_seconds=5.0) as (_, second, path):
        response = path.ask()
    assert text_of(response) == "Fast."
    assert (second.seen, response.headers["foreword-attempts"]) == ([], "1")


def test_the_first_call_may_still_win() -> None:
    release = threading.Event()
    with (
        two(strong=(when(release, answer("The first.")),), backup=(hang(),), hedge_seconds=0.05) as (_, second, path),
        ThreadPoolExecutor() as pool,
    ):
        asked = pool.submit(path.ask)
        second.wait_for(1)
        release.set()
        assert text_of(asked.result()) == "The first."
        second.wait_for_disconnect()


def test_the_second_call_answers_where_the_first_one_fails() -> None:
    release = threading.Event()
    strong, backup = (when(release, refuse(500)),), (when(release, answer("The second.", wait=0.1)),)
    with two(strong=strong, backup=backup, hedge_seconds=0.05) as (_, second, path), ThreadPoolExecutor() as pool:
        asked = pool.submit(path.ask)
        second.wait_for(1)
        release.set()
        assert text_of(asked.result()) == "The second."


def test_no_second_call_is_sent_without_a_budget_for_it() -> None:
    with one(answer(wait=0.2), hedge_seconds=0.01, retry_budget=0.0) as (fake, path):
        path.ask()
    assert len(fake.seen) == 1


def test_a_client_that_leaves_ends_both_calls() -> None:
    with two(strong=(hang(),), backup=(hang(),), hedge_seconds=0.05) as (first, second, path):
        with pytest.raises(openai.APITimeoutError), path.client(timeout=1.0) as client:
            client.chat.completions.create(model="strong", messages=[{"role": "user", "content": "Hi"}])
        first.wait_for_disconnect()
        second.wait_for_disconnect()
        entry = path.wait_for_entries(1)[0]
    assert entry["status"] == "cancelled"
    assert {charge["model"] for charge in entry["charges"]} == {"strong", "backup"}


# Ends before the end.


@pytest.mark.parametrize("fault", [cut(events=3), half(events=3), garbage(after=3), error_event(after=3)])
def test_a_stream_that_breaks_is_told_and_paid_and_never_tried_again(fault: Behaviour) -> None:
    with two(strong=(fault,)) as (first, second, path):
        response = path.ask("y" * 40, stream=True)
        entry = path.one_entry()
    assert (len(first.seen), len(second.seen)) == (1, 0)
    events = [line for line in response.text.splitlines() if line]
    assert text_of(response) == "Hello there, "
    assert json.loads(events[-1].removeprefix("data: "))["error"]["code"] == "upstream_failed"
    assert "[DONE]" not in response.text
    assert entry["status"] == "failed"
    assert charges_of(entry) == {"input": (14.0, 14 * IN), "output": (4.0, 4 * OUT)}
    assert {charge["priced_by"] for charge in entry["charges"]} == {"own (estimated)"}


def test_the_official_client_is_told_of_a_stream_that_breaks() -> None:
    with one(cut(events=3)) as (_, path), path.client() as client:
        chunks = client.chat.completions.create(model="strong", messages=[{"role": "user", "content": "Hi"}], stream=True)
        with pytest.raises(openai.APIError, match="broke off"):
            list(chunks)


def test_a_client_that_leaves_a_stream_ends_the_call_and_is_billed() -> None:
    with one(endless()) as (fake, path), path.client() as client:
        chunks = client.chat.completions.create(model="strong", messages=[{"role": "user", "content": "Hi"}], stream=True)
        for _ in range(5):
            next(chunks)
        chunks.close()
        fake.wait_for_disconnect()
        entry = path.wait_for_entries(1)[0]
    assert entry["status"] == "cancelled"
    assert charges_of(entry)["output"][0] >= 5
    assert {charge["priced_by"] for charge in entry["charges"]} == {"own (estimated)"}
    assert entry["amount"] > 0


@BOTH
def test_a_client_that_leaves_before_the_answer_ends_the_call(stream: bool) -> None:
    with one(hang()) as (fake, path):
        with pytest.raises(openai.APITimeoutError), path.client(timeout=0.5) as client:
            client.chat.completions.create(model="strong", messages=[{"role": "user", "content": "y" * 40}], stream=stream)
        fake.wait_for_disconnect()
        entry = path.wait_for_entries(1)[0]
    assert entry["status"] == "cancelled"
    assert charges_of(entry) == {"input": (14.0, 14 * IN)}


def test_a_stream_that_never_ends_ends_with_its_deadline() -> None:
    with one(endless(gap=0.001), task={"seconds": 0.5}) as (fake, path):
        response = path.ask(stream=True)
        fake.wait_for_disconnect()
        entry = path.one_entry()
    assert '"upstream_failed"' in response.text
    assert entry["status"] == "failed"
    assert entry["amount"] > 0


# Limits.


@BOTH
def test_deadlines_hold_over_all_tries(stream: bool) -> None:
    with one(hang(), task={"seconds": 0.3}) as (fake, path):
        response = path.ask(stream=stream)
        fake.wait_for_disconnect()
    assert (response.status_code, response.json()["error"]["code"]) == (504, "upstream_timeout")


def test_a_models_own_time_leaves_room_for_another() -> None:
    with two(strong=(hang(),), seconds=0.2, retries=0) as (first, _, path):
        assert text_of(path.ask()) == "From the backup."
        first.wait_for_disconnect()


def test_no_more_calls_are_under_way_than_the_model_takes() -> None:
    release = threading.Event()
    with one(when(release, answer()), at_once=1) as (fake, path), ThreadPoolExecutor() as pool:
        first = pool.submit(path.ask)
        fake.wait_for(1)
        second = pool.submit(path.ask)
        threading.Event().wait(0.2)
        assert len(fake.seen) == 1
        release.set()
        assert [first.result().status_code, second.result().status_code] == [200, 200]


def test_places_come_back_however_a_call_ends() -> None:
    faults = (refuse(500), drop(), cut(events=2), endless(words=1), garbage(), refuse(400, "No."))
    with one(*faults, at_once=1, retries=0, seconds=0.3) as (fake, path):
        for _ in faults:
            path.ask(stream=True)
        fake.script(answer())
        assert path.ask(stream=True).status_code == path.ask().status_code == 200


@pytest.mark.parametrize(
    ("asked", "fields", "sent"),
    [
        ({}, {"output_limit": 50}, {"max_tokens": 50}),
        ({"max_tokens": 200}, {"output_limit": 50}, {"max_tokens": 50}),
        ({"max_completion_tokens": 200}, {"output_limit": 50}, {"max_completion_tokens": 50}),
        ({}, {"output_limit": 50, "provider": "openai"}, {"max_completion_tokens": 50}),
        ({"max_tokens": 20}, {"output_limit": 50}, {"max_tokens": 20}),
        ({"max_tokens": 200}, {}, {"max_tokens": 70}),
    ],
)
def test_the_lowest_limit_of_the_output_is_sent(asked: dict[str, int], fields: dict[str, Any], sent: dict[str, int]) -> None:
    with one(task={"output_limit": 70}, **fields) as (fake, path):
        response = path.ask(**asked)
    assert {name: value for name, value in fake.seen[0].body.items() if name.startswith("max_")} == sent
    (limit,) = sent.values()
    cut_short = bool(asked) and limit not in asked.values()
    assert response.headers.get("foreword-output-limit") == (str(limit) if cut_short else None)


# What nobody may do, or see.


@pytest.mark.parametrize("field", ["url", "base_url", "api_base", "api_key", "endpoint"])
def test_no_client_chooses_an_upstream(field: str) -> None:
    with upstream() as other, one() as (fake, path):
        response = path.ask(**{field: other.url})
        assert response.status_code == 400
        headers = {"host": "elsewhere.example", "x-forwarded-host": "elsewhere.example", "foreword-url": other.url, "api-base": other.url}
        assert path.ask(headers=headers).status_code == 200
        assert other.seen == []
        assert fake.seen[0].headers["host"] in fake.url
        assert not any("elsewhere" in value for value in fake.seen[0].headers.values())


def test_what_the_client_sends_as_its_key_goes_nowhere() -> None:
    with one() as (fake, path):
        path.ask(headers={"authorization": "Bearer client-secret-key", "cookie": "session=1"})
    assert "authorization" not in fake.seen[0].headers
    assert "cookie" not in fake.seen[0].headers


def test_neither_keys_nor_prompts_reach_the_log(caplog: pytest.LogCaptureFixture) -> None:
    behaviours = (refuse(401, "Key sk-real-0123456789abcdef"), refuse(500), drop(), cut(), answer())
    settings: dict[str, Any] = {"stages": BARE, "tasks": {"default": {"tiers": ["strong"]}}}
    with caplog.at_level(logging.DEBUG), upstream(*behaviours) as fake:
        settings["models"] = {"strong": {**model(fake), "key_env": "THE_KEY", "retries": 0, "breaker_failures": 2}}
        with serving_path(settings, environment={"THE_KEY": "sk-real-0123456789abcdef"}) as path:
            for _ in range(6):
                path.ask("My secret question.", stream=True)
        assert fake.seen[0].headers["authorization"] == "Bearer sk-real-0123456789abcdef"
    assert "strong" in caplog.text
    for hidden in ("sk-real", "secret question"):
        assert hidden not in caplog.text
