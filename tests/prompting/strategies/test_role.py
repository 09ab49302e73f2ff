"""`role`: who answers."""

from __future__ import annotations

from asking import QUESTION, InLoop, solved
from foreword.types import Message, Sampling


def test_persona_is_the_system_message() -> None:
    model = InLoop(["42"])
    found = solved('role(persona="a pirate, and a good one.")', model)
    assert found.text == "42" and found.calls == 1
    assert model.asked == [(Message(role="system", content="You are a pirate, and a good one."), *QUESTION)]


def test_without_a_persona_nothing_is_said() -> None:
    model = InLoop(["42"])
    solved('role(persona="")', model)
    assert model.asked == [QUESTION]


def test_immersed_the_model_takes_the_role_in_its_own_words() -> None:
    model = InLoop(["Aye, I will count for ye.", "42"])
    found = solved("role(persona=a pirate, immerse=true)", model, sampling=Sampling(max_new_tokens=500))
    assert found.text == "42" and found.calls == 2
    setting, feedback, question = model.asked[1]
    assert "you are a pirate" in setting.content and feedback.content == "Aye, I will count for ye." and (question,) == QUESTION
    assert model.asked[0] == (setting,)
    assert [sampling.max_new_tokens for sampling in model.samplings] == [64, 500]
