"""Training on a few labelled lines: each is tried without itself, and the threshold keeps out what is like nothing."""

from __future__ import annotations

import numpy as np
import pytest

from foreword.errors import ConfigError, DataError
from foreword.gateway.intake.training import train
from word_vectors import WordVectors

TEXTS = [
    "refund my invoice",
    "the invoice is wrong",
    "a refund for this invoice please",
    "charge on my invoice",
    "I forgot my password",
    "reset the password",
    "password does not work",
    "new password please",
]
LABELS = ["billing"] * 4 + ["login"] * 4


def test_lines_that_share_words_get_their_type() -> None:
    found = train(TEXTS, LABELS, WordVectors())
    assert found.nearest == 1.0 and found.accuracy >= 0.875
    assert found.by_label.keys() == {"billing", "login"}
    assert found.unlike is None and found.unseen is not None


def test_a_line_does_not_speak_for_itself() -> None:
    # Each type's lines share no word, so that without itself a line is like nothing.
    texts = ["alpha", "bravo", "charlie", "delta"]
    found = train(texts, ["one", "one", "two", "two"], WordVectors(), missed=0.0)
    assert found.nearest <= 0.5


def test_leaving_out_agrees_with_training_without_the_line() -> None:
    embedder = WordVectors()
    vectors_ND = embedder.embed(TEXTS)
    right = 0
    for number, label in enumerate(LABELS):
        rest = [place for place in range(len(TEXTS)) if place != number]
        nearest = {
            name: max(vectors_ND[number] @ vectors_ND[place] for place in rest if LABELS[place] == name) for name in ("billing", "login")
        }
        means = {name: np.mean([vectors_ND[place] for place in rest if LABELS[place] == name], axis=0) for name in ("billing", "login")}
        likeness = {name: vectors_ND[number] @ mean / np.linalg.norm(mean) + nearest[name] for name, mean in means.items()}
        near = max(likeness, key=lambda name: likeness[name])
        right += near == label
    assert train(TEXTS, LABELS, embedder).nearest == right / len(TEXTS)


def test_missed_says_how_many_right_ones_may_fall_short() -> None:
    thresholds = [train(TEXTS, LABELS, WordVectors(), missed=missed).file.threshold for missed in (0.0, 0.25, 0.75)]
    assert thresholds[0] < thresholds[1] < thresholds[2]
    assert train(TEXTS, LABELS, WordVectors(), missed=0.0).accuracy == 1.0


def test_default_lines_choose_the_threshold_and_are_no_type() -> None:
    # They share a word with the types, so that a threshold that misses nothing would let them in.
    unlike = ["please sing", "my my my", "what does the fox say", "the tower of Pisa"]
    found = train([*TEXTS, *unlike], [*LABELS, *["default"] * 4], WordVectors(), missed=0.0)
    assert found.file.labels == ("billing", "login")
    assert found.unlike is not None and found.unlike >= 0.75 and found.lines == 12
    assert set(found.by_label) == {"billing", "login"}


def test_default_lines_cost_no_more_than_a_fifth_of_the_others() -> None:
    found = train([*TEXTS, *TEXTS], [*LABELS, *["default"] * 8], WordVectors())
    assert sum(found.by_label.values()) / 2 >= 0.75


def test_what_is_confused_is_told() -> None:
    texts = [*TEXTS, "my password invoice", "password invoice refund"]
    found = train(texts, [*LABELS, "login", "login"], WordVectors())
    assert all(own != given and count >= 1 for own, given, count in found.confused)


@pytest.mark.parametrize(
    ("texts", "labels", "told"),
    [
        (["a word", "another"], ["one", "two"], "`one` has one line"),
        (["a word", "another"], ["default", "default"], "other than `default`"),
        (["a word", "  ", "third", "fourth"], ["one", "one", "two", "two"], "Line 2"),
    ],
)
def test_lines_that_cannot_be_used_are_named(texts: list[str], labels: list[str], told: str) -> None:
    with pytest.raises(DataError, match=told):
        train(texts, labels, WordVectors())


def test_missed_must_be_a_share() -> None:
    with pytest.raises(ConfigError, match="missed"):
        train(TEXTS, LABELS, WordVectors(), missed=1.0)
