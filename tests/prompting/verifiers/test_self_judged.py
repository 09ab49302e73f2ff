"""`self-judged`: one call, read strictly."""

from __future__ import annotations

import asyncio

import pytest

from asking import QUESTION, InLoop, last_words
from foreword.prompting.strategy import Run
from foreword.prompting.verifier import Verdict
from foreword.prompting.verifiers import self_judged


def verdict(reply: str, answer: str = "42") -> tuple[Verdict, InLoop]:
    model = InLoop([reply])
    return asyncio.run(self_judged.verify(QUESTION, answer, Run(model).ask)), model


@pytest.mark.parametrize(("reply", "score"), [("Yes.", 1.0), ("no, it is not", 0.0), ("**No**", 0.0), ("I know nothing", 0.5), ("", 0.5)])
def test_reply(reply: str, score: float) -> None:
    assert verdict(reply)[0].score == score


def test_is_shown_question_and_answer() -> None:
    _, model = verdict("yes", "It is 42.")
    assert "What is 6 times 7?" in last_words(model.asked[0]) and "It is 42." in last_words(model.asked[0])
    assert model.samplings[0].temperature == 0 and model.samplings[0].max_new_tokens == 8


def test_of_an_endless_answer_the_end_is_shown() -> None:
    _, model = verdict("yes", "x" * 100_000 + " so 42")
    assert "so 42" in last_words(model.asked[0]) and len(last_words(model.asked[0])) < 7_000


def test_what_cannot_be_read_is_told() -> None:
    found, _ = verdict("Perhaps")
    assert not found.passed and "neither yes nor no" in found.reason and "Perhaps" in found.reason
