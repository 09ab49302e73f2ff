"""How facts fade and how well they fit."""

from __future__ import annotations

import pytest

from foreword.agent.facts import DAY, Decay, Fact, Provenance, Weights, Words, words


def a_fact(**fields: float) -> Fact:
    return Fact(**{"id": 1, "text": "x", "importance": 0.5, "provenance": Provenance(), "made": 0.0, "used": 0.0, **fields})  # type: ignore[arg-type]


def test_half_is_left_after_a_half_life():
    decay = Decay(half_life=DAY)
    assert decay.recency(a_fact(), 0) == 1
    assert decay.recency(a_fact(), DAY) == pytest.approx(0.5)
    assert decay.recency(a_fact(), 3 * DAY) == pytest.approx(0.125)
    assert decay.recency(a_fact(used=5 * DAY), DAY) == 1


def test_recalls_make_it_fade_more_slowly_up_to_a_point():
    decay = Decay(half_life=DAY, reinforcement=0.5, most_recalls=2)
    figures = [decay.recency(a_fact(recalls=recalls), DAY) for recalls in range(4)]
    assert figures[0] < figures[1] < figures[2] == figures[3]
    assert figures[2] == pytest.approx(0.5**0.5)


def test_scores_are_weighted_means():
    assert Weights().score(relevance=1, recency=0.5, importance=0) == pytest.approx(0.5)
    assert Weights(recency=0, importance=0).score(relevance=0.3, recency=1, importance=1) == pytest.approx(0.3)


def test_relevance_by_words():
    texts = ["Anna's parcel is number 4711.", "Ben likes tea.", "Anna lives in Bern."]
    by_words = Words(texts)
    first, second, third = by_words.relevance("What is the number of Anna's parcel?")
    assert first == pytest.approx(1.0) and second == 0 and 0 < third < 0.5
    assert by_words.relevance("the of") == [0, 0, 0]


def test_words_that_say_nothing_are_left_out():
    assert words("The number of an A4 page is 7") == {"number", "page", "a4", "7"}
