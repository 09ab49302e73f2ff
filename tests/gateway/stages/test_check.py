"""The stage as a client meets it: scores, escalation to the next tier, which of two answers is kept, and who pays for what."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from typing import Any

import pytest

from foreword.errors import ConfigError
from foreword.gateway.path_server import build_path
from foreword.gateway.path_settings import build_settings
from paths import ServedPath, serving_path
from upstreams import USAGE, Behaviour, FakeUpstream, Seen, answer, drop, hang, refuse, upstream

STAGES = ("intake", "route", "infer", "check", "bill")
PRICE = {"input_per_million": "1", "output_per_million": "2"}
ONE_CALL = Decimal("0.000001") * USAGE["prompt_tokens"] + Decimal("0.000002") * USAGE["completion_tokens"]


def by_model(**behaviours: Behaviour) -> Any:
    """Does what the asked model is to do."""

    def choose(seen: Seen) -> Behaviour:
        return behaviours[seen.body["model"]]

    return choose


@contextmanager
def tiers(
    check: dict[str, Any], *, names: tuple[str, ...] = ("small", "strong"), **behaviours: Behaviour
) -> Iterator[tuple[FakeUpstream, ServedPath]]:
    """A path whose tiers do what is given; a model beside them is the judge."""
    with upstream(chooses=by_model(**behaviours)) as fake:
        models = {name: {"url": fake.url, "model": name, "price": PRICE, "retries": 0} for name in behaviours}
        settings = {"models": models, "stages": STAGES, "tasks": {"default": {"tiers": names, "check": check}}}
        with serving_path(settings) as path:
            yield fake, path


def asked(fake: FakeUpstream) -> list[str]:
    return [seen.body["model"] for seen in fake.seen]


def text_of(response: Any) -> str:
    return response.json()["choices"][0]["message"]["content"]


LABELS = {"labels": ["billing", "login"]}


def test_a_good_answer_goes_out_at_once() -> None:
    with tiers(LABELS, small=answer("Billing."), strong=answer("login")) as (fake, path):
        response = path.ask()
        assert (response.status_code, text_of(response), asked(fake)) == (200, "Billing.", ["small"])
        assert response.headers["foreword-score"] == "1" and "foreword-escalated" not in response.headers
        entry = path.one_entry()
        assert (entry["success"], entry["score"], entry["escalated"]) == (1, 1.0, 0)


def test_a_bad_answer_is_asked_for_again_from_the_next_tier() -> None:
    with tiers(LABELS, small=answer("No idea."), strong=answer("login")) as (fake, path):
        response = path.ask()
        assert (text_of(response), asked(fake)) == ("login", ["small", "strong"])
        assert response.headers["foreword-escalated"] == "small" and response.headers["foreword-model"] == "strong"
        assert response.headers["foreword-score"] == "1" and "foreword-check" not in response.headers
        entry = path.one_entry()
        assert (entry["success"], entry["escalated"], entry["model"]) == (1, 1, "strong")
        # Both answers are paid for.
        assert entry["amount"] == 2 * ONE_CALL
        assert {charge["model"] for charge in entry["charges"]} == {"small", "strong"}


def test_it_is_asked_for_again_only_once() -> None:
    with tiers(LABELS, names=("small", "mid", "strong"), small=answer("a"), mid=answer("b"), strong=answer("login")) as (fake, path):
        response = path.ask()
        assert (text_of(response), asked(fake)) == ("b", ["small", "mid"])
        assert response.headers["foreword-score"] == "0" and response.headers["foreword-check"] == "labels does not hold"
        assert path.one_entry()["success"] == 0


def test_nothing_is_asked_again_where_no_tier_is_left_or_it_is_not_wanted() -> None:
    for check, names in ((LABELS, ("small",)), ({**LABELS, "escalate": False}, ("small", "strong"))):
        with tiers(check, names=names, small=answer("a"), strong=answer("login")) as (fake, path):
            response = path.ask()
            assert (response.status_code, text_of(response), asked(fake)) == (200, "a", ["small"])
            assert path.one_entry()["success"] == 0


@pytest.mark.parametrize("failure", [refuse(500), drop(), refuse(400)])
def test_where_no_other_answer_comes_the_first_one_stands(failure: Behaviour) -> None:
    with tiers(LABELS, small=answer("No idea."), strong=failure) as (_fake, path):
        response = path.ask()
        assert (response.status_code, text_of(response)) == (200, "No idea.")
        assert response.headers["foreword-escalated"] == "small" and response.headers["foreword-model"] == "small"
        entry = path.one_entry()
        assert (entry["status"], entry["success"], entry["model"], entry["escalated"]) == ("answered", 0, "small", 1)


def test_a_deadline_that_passes_meanwhile_leaves_the_first_one() -> None:
    with tiers(LABELS, small=answer("No idea."), strong=hang()) as (_, path):
        response = path.ask(headers={"foreword-deadline": "0.5"})
        assert (response.status_code, text_of(response)) == (200, "No idea.")


def test_the_better_of_two_answers_is_kept() -> None:
    def judged(seen: Seen) -> Behaviour:
        if seen.body["model"] != "judge":
            return answer("First." if seen.body["model"] == "small" else "Second.")
        return answer("0.4" if "First." in seen.body["messages"][1]["content"] else "0.2")

    with upstream(chooses=judged) as fake:
        models = {name: {"url": fake.url, "model": name, "price": PRICE} for name in ("small", "strong", "judge")}
        tasks = {"default": {"tiers": ["small", "strong"], "check": {"judge": "judge", "at_least": 0.9}}}
        with serving_path({"models": models, "stages": STAGES, "tasks": tasks}) as path:
            response = path.ask()
            assert text_of(response) == "First."
            assert (response.headers["foreword-score"], response.headers["foreword-model"]) == ("0.4", "small")
            assert asked(fake) == ["small", "judge", "strong", "judge"]
            entry = path.one_entry()
            assert (entry["model"], entry["score"], entry["success"]) == ("small", 0.4, 0)
            assert {(charge["stage"], charge["model"]) for charge in entry["charges"]} == {
                ("infer", "small"),
                ("infer", "strong"),
                ("check", "judge"),
            }
            assert entry["amount"] == 4 * ONE_CALL


def test_the_least_score_counts_and_a_judge_is_not_asked_for_nothing() -> None:
    check = {**LABELS, "judge": "judge", "escalate": False}
    with tiers(check, small=answer("billing"), strong=answer("x"), judge=answer("0.75")) as (fake, path):
        assert path.ask().headers["foreword-score"] == "0.75"
        assert asked(fake) == ["small", "judge"]
    with tiers(check, small=answer("neither"), strong=answer("x"), judge=answer("1")) as (fake, path):
        assert path.ask().headers["foreword-score"] == "0"
        assert asked(fake) == ["small"]


@pytest.mark.parametrize(("judge", "told"), [(answer("Lovely."), "judge unreadable"), (refuse(503), "judge unavailable")])
def test_a_judge_that_does_not_say_leaves_the_answer_unjudged(judge: Behaviour, told: str) -> None:
    with tiers({"judge": "judge"}, small=answer("a"), strong=answer("b"), judge=judge) as (fake, path):
        response = path.ask()
        assert (response.status_code, text_of(response), response.headers["foreword-check"]) == (200, "a", told)
        assert "foreword-score" not in response.headers and "strong" not in asked(fake)
        assert (path.one_entry()["success"], path.one_entry()["score"]) == (None, None)


def test_a_reference_in_the_metadata_is_what_a_scorer_compares_with() -> None:
    with tiers({"scorer": "number", "escalate": False}, small=answer("It is 42."), strong=answer("x")) as (_, path):
        assert path.ask(metadata={"reference": "42"}).headers["foreword-score"] == "1"
        assert path.ask(metadata={"reference": "41"}).headers["foreword-score"] == "0"
        assert "foreword-score" not in path.ask().headers
        assert [entry["success"] for entry in path.entries()] == [1, 0, None]


def test_a_reference_that_cannot_be_used_is_told() -> None:
    with tiers({"scorer": "tool-call"}, small=answer("{}"), strong=answer("x")) as (_, path):
        response = path.ask(metadata={"reference": "no JSON"})
        assert (response.status_code, response.headers["foreword-check"]) == (200, "the reference cannot be used")


def test_an_answer_that_calls_tools_is_not_judged() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "look_up", "arguments": "{}"}}
    with tiers(LABELS, small=answer("", tool_calls=[call]), strong=answer("login")) as (fake, path):
        tools = [{"type": "function", "function": {"name": "look_up", "parameters": {"type": "object"}}}]
        assert path.ask(tools=tools).status_code == 200
        assert asked(fake) == ["small"] and path.one_entry()["success"] is None


def test_a_stream_that_may_be_escalated_is_checked_before_any_of_it_is_sent() -> None:
    with tiers(LABELS, small=answer("No idea."), strong=answer("login")) as (fake, path):
        messages = [{"role": "user", "content": "Hi"}]
        with path.client() as client, client.chat.completions.create(model="auto", messages=messages, stream=True) as stream:
            said = [choice.delta.content for chunk in stream for choice in chunk.choices if choice.delta.content]
        assert "".join(said) == "login" and asked(fake) == ["small", "strong"]
        assert path.one_entry()["escalated"] == 1


def test_another_stream_is_sent_as_it_comes_and_scored_behind() -> None:
    with tiers({**LABELS, "escalate": False}, small=answer("No idea."), strong=answer("login")) as (fake, path):
        response = path.ask(stream=True)
        assert "No" in response.text and asked(fake) == ["small"]
        entry = path.one_entry()
        assert (entry["success"], entry["score"], entry["escalated"]) == (0, 0.0, 0)


def test_a_task_type_without_a_check_is_let_alone() -> None:
    with tiers({}, small=answer("No idea."), strong=answer("login")) as (_, path):
        assert "foreword-score" not in path.ask().headers
        assert path.one_entry()["success"] is None


@pytest.mark.parametrize("check", [{"regex": "(?=a)a"}, {"json_schema": {"type": "sculpture"}}, {"scorer": "nosuch"}])
def test_a_check_that_cannot_be_made_is_refused_at_the_start(check: dict[str, Any]) -> None:
    models = {"small": {"url": "http://127.0.0.1:9/v1", "model": "small"}}
    settings = {"models": models, "stages": STAGES, "store": {"ledger": "none"}, "tasks": {"default": {"check": check}}}
    with pytest.raises(ConfigError, match="check"):
        build_path(build_settings(settings, source="the test"))
