"""Scorers of the evaluation room, found by name, on one answer."""

from __future__ import annotations

import logging

import pytest

from foreword.errors import ConfigError
from foreword.gateway.checking.reference import reference_scorer


@pytest.mark.parametrize(
    ("name", "answer", "reference", "score"),
    [
        ("exact-match", "four", "four", 1.0),
        ("exact-match", "Four", "four", 0.0),
        ("number", "The answer is 42.", "42", 1.0),
        ("number", "The answer is 41.", "42", 0.0),
    ],
)
def test_a_scorer_judges_one_answer(name: str, answer: str, reference: str, score: float) -> None:
    assert reference_scorer(name)(answer, reference, "What is it?") == score


def test_a_label_scorer_knows_the_labels() -> None:
    assert reference_scorer("accuracy", ("billing", "login"))("billing", "billing", "q") == 1.0
    assert reference_scorer("accuracy", ("billing", "login"))("login", "billing", "q") == 0.0


@pytest.mark.parametrize("name", ["nosuch", "bleu", "label-likelihood"])
def test_what_cannot_judge_one_answer_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="scorer"):
        reference_scorer(name)


def test_a_reference_that_is_none_gives_no_score(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert reference_scorer("tool-call")("{}", "no JSON at all", "q") is None
    assert "tool-call" in caplog.text and "no JSON at all" not in caplog.text
