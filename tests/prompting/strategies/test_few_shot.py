"""`few-shot`: which examples are shown, and in what order."""

from __future__ import annotations

import numpy as np
import pytest

from asking import InLoop, solved
from foreword.errors import ConfigError
from foreword.prompting.strategies import few_shot
from foreword.prompting.strategy import Resources
from foreword.prompting.template import Shot
from foreword.types import Message
from word_vectors import WordVectors

SHOTS = tuple(
    Shot(user=user, assistant=user.upper())
    for user in (
        "grind coffee beans finely",
        "grind coffee beans coarsely",
        "send parcel to Oslo",
        "refund my money please",
        "grind coffee",
        "send parcel",
    )
)
ASKED = (Message(role="user", content="grind coffee beans"),)


class Counting(WordVectors):
    """Counts the texts that it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.texts = 0

    def embed(self, texts):
        self.texts += len(texts)
        return super().embed(texts)


def shown(text: str, resources: Resources | None = None) -> list[int]:
    """Places of the examples that the model is shown, in order."""
    model = InLoop(["yes"])
    found = solved(text, model, ASKED, resources=resources or Resources(shots=SHOTS, embedder=WordVectors()))
    assert found.calls == 1
    return [SHOTS.index(Shot(user=turn.content, assistant=turn.content.upper())) for turn in model.asked[0][:-1] if turn.role == "user"]


def test_fixed_takes_the_first() -> None:
    assert shown("few-shot(k=3)", Resources(shots=SHOTS)) == [0, 1, 2]


def test_nearest_takes_those_most_like_the_question() -> None:
    assert shown("few-shot(k=3, select=nearest)") == [0, 1, 4]


def test_nearest_last() -> None:
    vectors_SD = WordVectors().embed([shot.user for shot in SHOTS])
    likeness_S = vectors_SD @ WordVectors().embed(["grind coffee beans"])[0]
    order = shown("few-shot(k=3, select=nearest, order=nearest-last)")
    assert sorted(order) == [0, 1, 4] and order == sorted(order, key=lambda place: likeness_S[place])
    assert sorted(shown("few-shot(k=3, order=nearest-last)")) == [0, 1, 2]


def test_random_order_is_that_of_its_seed() -> None:
    orders = {seed: shown(f"few-shot(k=6, order=random, seed={seed})") for seed in range(4)}
    assert orders[1] == shown("few-shot(k=6, order=random, seed=1)")
    assert len({tuple(order) for order in orders.values()}) > 1 and all(sorted(order) == list(range(6)) for order in orders.values())


def test_diverse_leaves_out_what_is_like_what_is_shown() -> None:
    nearest, diverse = shown("few-shot(k=2, select=nearest)"), shown("few-shot(k=2, select=diverse, relevance=0.3)")
    assert len(set(nearest) & {0, 1, 4}) == 2, "both nearest ones are about coffee"
    assert len(set(diverse) & {0, 1, 4}) == 1, "the second must say something else"


def test_spread_by_hand() -> None:
    vectors_SD = np.array([[1.0, 0.0], [0.9, 0.4358899], [0.0, 1.0], [-1.0, 0.0]])
    likeness_S = (vectors_SD @ np.array([1.0, 0.0])).tolist()
    assert few_shot.spread(vectors_SD, likeness_S, 2, relevance=1.0) == [0, 1]
    # After (1, 0), with weights .1 and .9: the second is worth .09 - .81, the third 0, the last -.1 + .9.
    assert few_shot.spread(vectors_SD, likeness_S, 2, relevance=0.1) == [0, 3]
    assert len(few_shot.spread(vectors_SD, likeness_S, 9, relevance=0.5)) == 4


def test_fewer_examples_than_wanted_are_all_shown_and_told() -> None:
    found = solved("few-shot(k=9)", ["yes"], ASKED, resources=Resources(shots=SHOTS))
    assert found.note == "6 of 9 examples: there are no more"


def test_examples_are_embedded_once() -> None:
    resources = Resources(shots=SHOTS, embedder=Counting())
    for _ in range(3):
        shown("few-shot(k=2, select=nearest)", resources)
    assert resources.embedder is not None and resources.embedder.texts == len(SHOTS) + 3


def test_an_instruction_stands_before_all() -> None:
    model = InLoop(["yes"])
    solved("few-shot(k=1, instruction=Be brief.)", model, ASKED, resources=Resources(shots=SHOTS))
    assert [turn.role for turn in model.asked[0]] == ["system", "user", "assistant", "user"]


def test_what_is_missing_is_told() -> None:
    with pytest.raises(ConfigError, match="no examples"):
        solved("few-shot", ["yes"])
    for text in ("few-shot(select=nearest)", "few-shot(select=diverse)", "few-shot(order=nearest-last)"):
        with pytest.raises(ConfigError, match="no embedder"):
            solved(text, ["yes"], resources=Resources(shots=SHOTS))
