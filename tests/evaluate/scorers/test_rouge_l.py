from __future__ import annotations

import pytest

from foreword.evaluate.scorers import rouge_l

pytest.importorskip("rouge_score", reason="rouge-score (extra `compare`) computes the score")


def test_by_hand(outcome) -> None:
    # common subsequence `the mill cheap` of 3 words; precision 3/4, recall 3/5
    score = rouge_l.score(outcome(["The mill was cheap."], ["the old mill is cheap"]))
    assert score.value == pytest.approx(2 * 0.75 * 0.6 / (0.75 + 0.6))


def test_the_best_reference_counts_and_rows_are_averaged(outcome) -> None:
    score = rouge_l.score(outcome(["a b c", "x"], [["q", "a b c", "a"], "y"]))
    assert score.per_example == pytest.approx([1, 0])
    assert score.value == pytest.approx(0.5)


def test_words_are_not_stemmed(outcome) -> None:
    assert rouge_l.score(outcome(["coffees"], ["coffee"])).value == 0


def test_silence_scores_0(outcome) -> None:
    assert rouge_l.score(outcome([""], ["a b"])).value == 0
