"""`zero-shot`."""

from __future__ import annotations

from asking import QUESTION, InLoop, solved
from foreword.types import Message


def test_asks_the_question_as_it_is() -> None:
    model = InLoop(["42"])
    found = solved("zero-shot", model)
    assert (found.text, found.final, found.calls, found.status) == ("42", "42", 1, "answered")
    assert model.asked == [QUESTION]


def test_an_instruction_becomes_the_system_message() -> None:
    model = InLoop(["42"])
    solved("zero-shot(instruction=Be brief.)", model)
    assert model.asked == [(Message(role="system", content="Be brief."), *QUESTION)]
