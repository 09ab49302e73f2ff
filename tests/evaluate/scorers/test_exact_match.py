from __future__ import annotations

from foreword.evaluate.scorers import exact_match


def test_white_space_is_free_and_letters_are_not(outcome) -> None:
    score = exact_match.score(outcome([" 4  July\n1776 ", "Paris", "Paris."], ["4 July 1776", "paris", "Paris"]))
    assert score.per_example is not None
    assert score.per_example.tolist() == [1, 0, 0]


def test_any_reference_will_do(outcome) -> None:
    assert exact_match.score(outcome(["two"], [["2", "two"]])).value == 1
