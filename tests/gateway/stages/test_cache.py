"""`cache`: what is answered again, for whom, and what never is."""

from __future__ import annotations

from decimal import Decimal

import pytest

from foreword.errors import ConfigError
from foreword.gateway.cache.sameness import same_answer
from foreword.retrieval import embedder
from paths import serving_path
from upstreams import USAGE, answer, refuse, upstream

EXACT = {"exact": True}


def settings(url: str, cache: dict, **task) -> dict:
    price = {"input_per_million": "1", "output_per_million": "2"}
    return {
        "models": {"big": {"url": url, "model": "big", "price": price}},
        "tasks": {"default": {"tiers": ["big"], "cache": cache, **task}},
        "stages": ["intake", "cache", "route", "infer", "check", "bill"],
    }


@pytest.fixture(scope="module")
def words():
    return embedder.get()


def told(response) -> str:
    return response.headers["foreword-cache"].partition(";")[0]


def test_the_same_request_is_answered_once_and_costs_nothing_again():
    with upstream(answer("Tea.")) as fake, serving_path(settings(fake.url, EXACT)) as path:
        first, second = path.ask("What is hot?"), path.ask("What is hot?")
        assert (told(first), told(second)) == ("miss", "exact")
        assert first.json()["choices"] == second.json()["choices"]
        assert first.json()["id"] != second.json()["id"]
        assert Decimal(second.headers["foreword-cost"]) == 0
        assert len(fake.seen) == 1
        entry = path.entries()[1]
        paid = Decimal(USAGE["prompt_tokens"]) / 10**6 + 2 * Decimal(USAGE["completion_tokens"]) / 10**6
        assert [(saving["lever"], saving["amount"]) for saving in entry["savings"]] == [("cache", paid)]
        assert (entry["cache"], entry["amount"]) == ("exact", 0)


def test_a_stream_is_kept_and_served_as_a_stream():
    with upstream(answer("Green tea.")) as fake, serving_path(settings(fake.url, EXACT)) as path:
        texts = []
        for _ in range(2):
            chunks = path.client().chat.completions.create(model="auto", messages=[{"role": "user", "content": "?"}], stream=True)
            texts.append("".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices))
        assert texts == ["Green tea.", "Green tea."]
        assert path.ask("?").json()["choices"][0]["message"]["content"] == "Green tea."
        assert len(fake.seen) == 1


@pytest.mark.parametrize(
    "fields",
    [
        {"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello."}]},
        {"tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}]},
        {"response_format": {"type": "json_object"}},
        {"max_tokens": 3},
        {"seed": 7},
    ],
    ids=lambda fields: next(iter(fields)),
)
def test_another_request_is_another_answer(fields):
    with upstream(answer("Tea.")) as fake, serving_path(settings(fake.url, EXACT)) as path:
        path.ask("Hello.")
        assert told(path.ask("Hello.", **fields)) == "miss"


def test_no_tenant_gets_anothers_answer(tmp_path):
    from foreword.gateway.tenants import parse_keys

    keys = parse_keys("secret-of-acme acme\nsecret-of-rival rival", source="test")
    with upstream(answer("Tea.")) as fake, serving_path(settings(fake.url, EXACT), keys=keys) as path:
        for key in ("secret-of-acme", "secret-of-rival"):
            with path.http(key) as http:
                body = {"model": "auto", "messages": [{"role": "user", "content": "Hello."}]}
                assert told(http.post("/v1/chat/completions", json=body)) == "miss"
        assert len(fake.seen) == 2


@pytest.mark.parametrize(
    "question",
    ["My card is 4111 1111 1111 1111.", "Write to lea@example.org."],
)
def test_what_is_private_is_never_kept(question):
    with upstream(answer("Noted.")) as fake, serving_path(settings(fake.url, EXACT)) as path:
        assert [told(path.ask(question)) for _ in range(2)] == ["miss", "miss"]


def test_an_answer_that_was_cut_off_is_not_kept():
    with upstream(answer("Tea and", finish_reason="length")) as fake, serving_path(settings(fake.url, EXACT)) as path:
        assert [told(path.ask()) for _ in range(2)] == ["miss", "miss"]


def test_a_failure_is_not_kept():
    with upstream(refuse(400, "No."), answer("Tea.")) as fake, serving_path(settings(fake.url, EXACT)) as path:
        assert path.ask().status_code == 400
        assert told(path.ask()) == "miss"


def test_an_answer_that_failed_its_check_is_not_kept():
    check = {"labels": ["billing", "login"], "escalate": False}
    with upstream(answer("tea")) as fake, serving_path(settings(fake.url, EXACT, check=check)) as path:
        assert [told(path.ask()) for _ in range(2)] == ["miss", "miss"]


def test_answers_drawn_too_freely_are_made_anew():
    with upstream(answer("Tea.")) as fake, serving_path(settings(fake.url, {**EXACT, "temperature_at_most": 0.5})) as path:
        assert [told(path.ask(temperature=0.9)) for _ in range(2)] == ["off: drawn answers", "off: drawn answers"]
        assert [told(path.ask(temperature=0.3)) for _ in range(2)] == ["miss", "exact"]


def test_a_client_can_ask_past_the_cache():
    with upstream(answer("Tea.")) as fake, serving_path(settings(fake.url, EXACT)) as path:
        path.ask()
        assert "foreword-cache" not in path.ask(headers={"cache-control": "no-store"}).headers
        assert len(fake.seen) == 2


def test_an_entry_past_its_time_is_not_given():
    with upstream(answer("Tea.")) as fake, serving_path(settings(fake.url, {**EXACT, "ttl_seconds": 0.05})) as path:
        path.ask()
        import time

        time.sleep(0.1)
        assert told(path.ask()) == "miss"


def test_a_question_that_means_the_same_is_answered_from_a_fixed_threshold_on(words):
    cache = {"semantic": "fixed", "threshold": 0.8}
    with upstream(answer("Within two weeks.")) as fake, serving_path(settings(fake.url, cache), embedder=words) as path:
        assert told(path.ask("How long do I have to return a coffee machine?")) == "miss"
        again = path.ask("How long do I have to return the coffee machine?")
        assert told(again) == "semantic"
        assert "similarity=0.9" in again.headers["foreword-cache"]
        assert told(path.ask("Which colours does the grinder come in?")) == "miss"
        # The very same question is not the exact cache's where that is off, and means the same as itself all the more.
        assert told(path.ask("How long do I have to return a coffee machine?")) == "semantic"


def test_the_opposite_question_is_not_answered(words):
    cache = {"semantic": "bound", "bound": 0.05}
    with upstream(answer("Yes.")) as fake, serving_path(settings(fake.url, cache), embedder=words) as path:
        for _ in range(10):
            path.ask("Can I return an opened coffee machine?")
        assert told(path.ask("Can I not return an opened coffee machine?")) == "miss"


def test_a_semantic_cache_without_an_embedder_is_refused():
    with pytest.raises(ConfigError, match="embedder"), serving_path(settings("http://127.0.0.1:1", {"semantic": "fixed"})):
        pass


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("Billing", "billing.", True),
        ("1,200", "1200", True),
        ("billing", "login", False),
        (
            "You can return the machine within 14 days of delivery, in its own box.",
            "You can return the machine within 30 days of delivery, in its own box.",
            False,
        ),
        (
            "You can return the machine within 14 days of delivery, in its own box.",
            "Within 14 days of delivery you can return the machine, in its own box.",
            True,
        ),
        (
            "You may return a machine that was opened, at any time you like.",
            "You may not return a machine that was opened, at any time you like.",
            False,
        ),
    ],
)
def test_which_answers_say_the_same(words, one, other, same):
    assert same_answer(one, other, words) is same
