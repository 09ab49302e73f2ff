from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from foreword.evaluate.scorers import nist

SENTENCES = st.lists(st.sampled_from(["the", "mill", "is", "cheap", "and", "near"]), min_size=5, max_size=12)


@given(rows=st.lists(st.tuples(SENTENCES, SENTENCES), min_size=1, max_size=6))
def test_agrees_with_nltk_where_each_row_has_one_reference(outcome, rows) -> None:
    """With several references nltk takes the best one per order; NIST's own program, followed here, merges them."""
    nltk = pytest.importorskip("nltk.translate.nist_score", reason="nltk (extra `compare`) is the reference")
    answers, references = zip(*rows, strict=True)
    expected = nltk.corpus_nist([[words] for words in references], answers, n=5)
    score = nist.score(outcome([" ".join(words) for words in answers], [" ".join(words) for words in references]))
    assert score.value == pytest.approx(expected, abs=1e-9)


def test_several_references_by_hand(outcome) -> None:
    """Words: a 2, b 2, c 1 of 5. The answer `a b` matches both; mean reference length is 2.5, so the ratio is 0.8."""
    bits_a, bits_b = math.log2(5 / 2), math.log2(5 / 2)
    bits_ab = math.log2(2 / 1)  # `a` occurs twice, `a b` once
    penalty = math.exp(math.log(0.5) / math.log(1.5) ** 2 * math.log(0.8) ** 2)
    score = nist.score(outcome(["a b"], [["a b", "b a c"]]))
    assert score.value == pytest.approx(((bits_a + bits_b) / 2 + bits_ab / 1) * penalty)


def test_matches_are_clipped_at_the_most_in_one_reference(outcome) -> None:
    # counts a 3, b 2 of 5 words; `a a a` may match `a` twice at most; a a occurs once, `a` three times
    score = nist.score(outcome(["a a a"], [["a a b", "b a"]]))
    assert score.value == pytest.approx(math.log2(5 / 3) * 2 / 3 + math.log2(3 / 1) * 1 / 2)


def test_the_penalty_is_a_half_at_two_thirds_of_the_length() -> None:
    assert nist._length_factor(2, 3) == pytest.approx(0.5)
    assert nist._length_factor(4, 3) == 1


def test_case_is_ignored_and_silence_scores_0(outcome) -> None:
    assert nist.score(outcome(["THE MILL IS CHEAP"], ["the mill is cheap"])).value > 0
    assert nist.score(outcome([""], ["the mill"])).value == 0


@given(rows=st.lists(st.tuples(SENTENCES, SENTENCES), min_size=2, max_size=6))
def test_resampling_keeps_the_information_of_all_rows(outcome, rows) -> None:
    answers = [" ".join(answer) for answer, _ in rows]
    references = [" ".join(words) for _, words in rows]
    score = nist.score(outcome(answers, references))
    assume(score.value > 0)
    everything_twice = np.repeat(np.arange(len(rows)), 2)
    assert score.statistic(everything_twice) == pytest.approx(score.value)
