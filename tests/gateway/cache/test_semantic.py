import dataclasses
from typing import Any

import numpy as np
import pytest

from foreword.errors import ConfigError
from foreword.gateway.cache.bound import BoundSettings
from foreword.gateway.cache.key import Key, key_of
from foreword.gateway.cache.semantic import SEARCHED_THROUGH, SemanticCache, policy_of
from foreword.retrieval import embedder

pytest.importorskip("usearch", reason="the semantic cache's index is not installed")


@pytest.fixture(scope="module")
def words() -> Any:
    return embedder.get()


def key(question: str, tenant: str = "a", system: str = "Be brief.") -> Key:
    messages = [{"role": "system", "content": system}, {"role": "user", "content": question}]
    return key_of({"messages": messages}, tenant=tenant, model="small@1")


def ask(cache: SemanticCache, question: str, **place: str) -> Any:
    """A look-up; what is not answered is kept."""
    found = cache.look_up(key(question, **place))
    if not found.hit:
        cache.add(key(question, **place), found)
    return found


def cached(words: Any, threshold: float, *questions: str, **given: Any) -> SemanticCache:
    cache = SemanticCache(words, policy_of(threshold=threshold), **given)
    for question in questions:
        cache.add(key(question), cache.look_up(key(question)))
    return cache


def test_a_question_asked_otherwise_finds_its_answer(words: Any) -> None:
    cache = cached(words, 0.8, "How do I reset my password?", "What is the capital of Canada?")
    found = cache.look_up(key("How can I reset my password?"))
    assert found.hit and found.entry.exact == key("How do I reset my password?").exact
    assert not cache.look_up(key("How do I bake bread?")).hit


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Should I take ibuprofen with food?", "Should I not take ibuprofen with food?"),
        ("How do I convert 10 euros to dollars?", "How do I convert 1000 euros to dollars?"),
        ("What is the weather in Paris today?", "What is the weather in Rome today?"),
    ],
)
def test_a_question_does_not_find_the_one_it_turns_round(words: Any, one: str, other: str) -> None:
    for threshold in (0.0, 0.6):
        assert not cached(words, threshold, one).look_up(key(other)).hit


def test_tenants_and_partitions_are_apart(words: Any) -> None:
    cache = cached(words, 0.0, "What is my balance?")
    assert cache.look_up(key("What is my balance?")).hit
    for place in ({"tenant": "b"}, {"system": "Be long."}):
        found = cache.look_up(key("What is my balance?", **place))
        assert not found.hit and found.entry is None and not found.near


def test_a_forged_partition_shows_no_tenant_anothers_questions(words: Any) -> None:
    cache = cached(words, 0.0, "What is my balance?")
    forged = dataclasses.replace(key("What is my balance?"), tenant="b")
    assert cache.look_up(forged).near == ()


def test_tenants_learn_apart(words: Any) -> None:
    cache = SemanticCache(words, policy_of(bound=BoundSettings(bound=0.2, least_observations=1, seed=0)))
    assert cache.policy("a") is cache.policy("a") is not cache.policy("b")


def test_a_threshold_of_0_is_not_taken_for_none(words: Any) -> None:
    found = cached(words, 0.0, "how do i bake bread").look_up(key("why is the sky blue"))
    assert found.hit and found.similarity < 0.5


def test_what_cannot_be_looked_up_misses(words: Any) -> None:
    cache = cached(words, 0.0, "What is a cache?")
    for question in ("", "   ", "word " * 1_000):
        found = cache.look_up(key(question))
        assert not found.hit
        cache.add(key(question), found)
    assert len(cache) == 1


def test_a_forgotten_question_is_not_found(words: Any) -> None:
    cache = cached(words, 0.5, "How do I reset my password?", "What is the capital of Canada?")
    cache.forget(key("How do I reset my password?").exact)
    cache.forget("nothing under this")
    assert len(cache) == 1
    assert not cache.look_up(key("How do I reset my password?")).hit
    assert cache.look_up(key("What is the capital of Canada?")).hit


def test_the_longest_unused_make_room(words: Any) -> None:
    cache = cached(words, 0.99, "How do I bake bread?", "Why is the sky blue?", most_entries=2)
    assert cache.look_up(key("How do I bake bread?")).hit
    ask(cache, "Who wrote Faust?")
    assert len(cache) == 2
    assert cache.look_up(key("How do I bake bread?")).hit
    assert not cache.look_up(key("Why is the sky blue?")).hit


def test_a_question_is_kept_once(words: Any) -> None:
    cache = cached(words, 1.0, "How do I bake bread?", "How do I bake bread?")
    assert len(cache) == 1


def test_a_large_partition_finds_and_forgets_as_a_small_one(words: Any) -> None:
    draws = np.random.default_rng(0)
    things = [f"{one}{two}" for one in "bcdfghklmnprst" for two in ("ask", "ell", "ink", "old", "ump", "ay", "ow", "ine", "ear")]
    questions = [f"What is a {' '.join(draws.choice(things, 3))}?" for _ in range(SEARCHED_THROUGH + 200)]
    cache = cached(words, 0.999, *questions)
    assert sum(cache.look_up(key(question)).hit for question in questions) >= 0.98 * len(questions)
    for question in questions[:100]:
        cache.forget(key(question).exact)
    gone = set(questions[:100]) - set(questions[100:])
    found = [cache.look_up(key(question)) for question in gone]
    assert not any(one.entry is not None and one.entry.question in gone for one in found)


def test_learns_from_what_the_model_would_have_said(words: Any) -> None:
    cache = SemanticCache(words, policy_of(bound=BoundSettings(bound=0.3, least_observations=20, audit=0.0, seed=0)))
    hits = 0
    for number in range(300):
        word = f"{'abcdefghij'[number % 10]}{'klmnopqrst'[number // 10 % 10]}oth"
        found = ask(cache, f"How {'do' if number % 2 else 'can'} I clean a {word} {'carpet' if number % 3 else 'rug'}?")
        hits += found.hit
        if not found.hit:
            cache.observe(key("any"), found, same={entry.number: True for entry in found.near})
    assert hits > 50


def test_what_comes_late_about_a_forgotten_entry_is_left_out(words: Any) -> None:
    cache = SemanticCache(words, policy_of(bound=BoundSettings(bound=0.1)))
    ask(cache, "How do I bake bread?")
    found = cache.look_up(key("How can I bake bread?"))
    cache.forget(key("How do I bake bread?").exact)
    cache.observe(key("How can I bake bread?"), found, same={found.entry.number: True})
    policy: Any = cache.policy("a")
    assert policy.observations == 0


def test_its_state_can_be_taken_up(words: Any) -> None:
    settings = BoundSettings(bound=0.3, least_observations=1, seed=0)
    first, second = (SemanticCache(words, policy_of(bound=settings)) for _ in range(2))
    for question in ("How do I bake bread?", "How can I bake bread?", "Why is the sky blue?"):
        found = ask(first, question)
        first.observe(key(question), found, same={entry.number: True for entry in found.near})
    second.restore(first.state())
    one, other = (cache.look_up(key("How should I bake bread?")) for cache in (first, second))
    assert len(second) == len(first) == 3
    assert one.decision.risk == pytest.approx(other.decision.risk)
    assert one.entry == other.entry
    with pytest.raises(ConfigError, match="embedder"):
        second.restore(first.state() | {"embedder": "another/one"})


def test_no_question_is_in_what_is_printed(words: Any) -> None:
    found = cached(words, 0.5, "What is my secret?").look_up(key("What is my secret?"))
    assert "secret" not in repr(found)


def test_one_way_to_decide() -> None:
    for given in ({}, {"bound": BoundSettings(bound=0.1), "threshold": 0.5}):
        with pytest.raises(ConfigError, match="one of the two"):
            policy_of(**given)


def test_sizes_that_cannot_be(words: Any) -> None:
    with pytest.raises(ConfigError, match="1 or more"):
        SemanticCache(words, policy_of(threshold=0.5), most_entries=0)
