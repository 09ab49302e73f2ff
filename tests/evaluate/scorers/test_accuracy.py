from __future__ import annotations

from foreword.evaluate.scorers import accuracy


def test_strips_and_folds_case(outcome) -> None:
    score = accuracy.score(outcome([" Billing\n", "STRASSE", "log in", ""], ["billing", "straße", "login", "login"]))
    assert score.per_example is not None
    assert score.per_example.tolist() == [1, 1, 0, 0]
    assert score.value == 0.5


def test_a_label_inside_a_sentence_is_not_the_label(outcome) -> None:
    assert accuracy.score(outcome(["the label is billing"], ["billing"])).value == 0


def test_any_of_several_labels_will_do(outcome) -> None:
    assert accuracy.score(outcome(["b"], [["a", "b"]])).value == 1
