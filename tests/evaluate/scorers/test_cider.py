from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foreword.evaluate.scorers import cider

WORDS = st.lists(st.sampled_from(["a", "b", "c", "d", "e", "f"]), min_size=1, max_size=9).map(" ".join)


def test_an_answer_equal_to_its_only_reference_scores_10(outcome) -> None:
    score = cider.score(outcome(["a b c d", "e f g h"], ["a b c d", "E, F: g h!"]))
    assert score.per_example == pytest.approx([10, 10])


def test_by_hand(outcome) -> None:
    """Two rows; answer `a b`, reference `a c`. Of n = 1 only: idf ln 2 each, cosine 1/2; other orders 0; same length."""
    score = cider.score(outcome(["a b", "x y"], ["a c", "x y"]))
    assert score.per_example is not None
    assert score.per_example[0] == pytest.approx(10 * 0.5 / 4)
    assert score.per_example[1] == pytest.approx(10 * 2 / 4)  # two words have no runs of three or four


def test_words_of_every_row_weigh_nothing(outcome) -> None:
    score = cider.score(outcome(["the p", "the q"], ["the r", "the s"]))
    assert score.value == 0


def test_repeating_a_word_is_clipped_and_length_is_punished(outcome) -> None:
    """The D variant: `a a` against `a` gives min(2, 1)·1 / (2·1) = 1/2 for n = 1, times exp(-1/72)."""
    score = cider.score(outcome(["a a", "z"], ["a", "z"]))
    assert score.per_example is not None
    assert score.per_example[0] == pytest.approx(10 * 0.5 / 4 * math.exp(-1 / 72))


def test_references_are_averaged_not_maximised(outcome) -> None:
    score = cider.score(outcome(["a b c d", "z"], [["a b c d", "q r s t"], "z"]))
    assert score.per_example is not None
    assert score.per_example[0] == pytest.approx(5)


def test_one_row_has_no_rarity_and_silence_no_score(outcome) -> None:
    assert cider.score(outcome(["a b"], ["a b"])).value == 0
    assert cider.score(outcome(["", "z"], ["a b", "z"])).per_example[0] == 0


@given(rows=st.lists(st.tuples(WORDS, st.lists(WORDS, min_size=1, max_size=3)), min_size=1, max_size=6))
def test_lies_between_0_and_10(outcome, rows) -> None:
    per_example = cider.score(outcome(*zip(*rows, strict=True))).per_example
    assert per_example is not None
    assert (per_example >= 0).all()
    assert (per_example <= 10 + 1e-9).all()
