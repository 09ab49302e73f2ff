from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from foreword.evaluate.scorers import macro_f1

LABELS = st.sampled_from(["a", "b", "c"])
PAIRS = st.lists(st.tuples(LABELS, LABELS), min_size=1, max_size=40)


def test_by_hand(outcome) -> None:
    # a: TP 2, FP 1, FN 0 -> 4/5; b: TP 0, FN 1 -> 0; c: TP 1 -> 1
    score = macro_f1.score(outcome(["a", "a", "a", "c"], ["a", "a", "b", "c"]))
    assert score.value == pytest.approx((0.8 + 0 + 1) / 3)
    assert score.per_example is None


def test_an_answer_that_is_no_label_is_a_miss_but_makes_no_class(outcome) -> None:
    # a: TP 1, FN 1 -> 2/3; b: TP 1 -> 1
    score = macro_f1.score(outcome(["a", "I cannot say", "b"], ["a", "a", "b"], labels=("a", "b")))
    assert score.value == pytest.approx((2 / 3 + 1) / 2)


def test_a_class_that_nobody_names_is_left_out(outcome) -> None:
    assert macro_f1.score(outcome(["a", "b"], ["a", "b"], labels=("a", "b", "never"))).value == 1
    assert macro_f1.score(outcome(["a", "never"], ["a", "b"], labels=("a", "b", "never"))).value == pytest.approx(1 / 3)


def test_of_several_acceptable_labels_the_answered_one_counts(outcome) -> None:
    assert macro_f1.score(outcome(["B ", "a"], [["a", "b"], "a"])).value == 1


@given(pairs=PAIRS, seed=st.integers(0, 2**32 - 1))
def test_agrees_with_scikit_learn_on_any_rows(outcome, pairs, seed) -> None:
    sklearn = pytest.importorskip("sklearn.metrics", reason="scikit-learn (extra `compare`) is the reference")
    given_, wanted = zip(*pairs, strict=True)
    score = macro_f1.score(outcome(given_, wanted, labels=("a", "b", "c")))
    rows = np.random.default_rng(seed).integers(0, len(pairs), len(pairs))
    for chosen in (np.arange(len(pairs)), rows):
        expected = sklearn.f1_score(np.array(wanted)[chosen], np.array(given_)[chosen], average="macro", zero_division=0.0)
        assert score.statistic(chosen) == pytest.approx(expected, abs=1e-12)


@given(pairs=PAIRS)
def test_lies_between_0_and_1_and_is_1_only_when_all_is_right(outcome, pairs) -> None:
    value = macro_f1.score(outcome(*zip(*pairs, strict=True))).value
    assert 0 <= value <= 1
    assert (value == 1) == all(answer == wanted for answer, wanted in pairs)
