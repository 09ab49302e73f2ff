"""`reflection`: checked by others, or by the model itself."""

from __future__ import annotations

from collections.abc import Sequence

from asking import InLoop, last_words, solved
from foreword.prompting.strategy import Budget, Resources
from foreword.prompting.verifier import Ask, Verdict
from foreword.types import Message


async def near(conversation: Sequence[Message], answer: str, ask: Ask) -> Verdict:
    """The nearer to 42, the better."""
    off = abs(42 - int(answer))
    return Verdict(score=1 / (1 + off), reason=f"It is {off} off." if off else "")


NEAR = Resources(verify=near)


def test_what_a_verifier_says_is_told_to_the_model() -> None:
    model = InLoop(["40", "44", "42"])
    found = solved("reflection", model, resources=NEAR)
    assert (found.final, found.calls, found.note) == ("42", 3, "found right after 2 revisions")
    assert "It is 2 off." in last_words(model.asked[1]) and model.asked[1][-2].content == "40"
    assert found.candidates == ("40", "44", "42")
    assert [span.attributes["score"] for span in found.trace.of_kind("check")] == [1 / 3, 1 / 3, 1.0]


def test_the_best_by_score_is_kept() -> None:
    found = solved("reflection(rounds=2)", ["30", "41", "50"], resources=NEAR)
    assert (found.final, found.calls) == ("41", 3)
    assert found.note == "not found right in 2 rounds; the best scored 0.50"


def test_a_first_answer_that_passes_costs_one_call() -> None:
    assert solved("reflection", ["42"], resources=NEAR).calls == 1


def test_the_model_may_criticise_itself() -> None:
    model = InLoop(["41", "Verdict: wrong\nIt is one more.", "42", "**Verdict:** right"])
    found = solved("reflection", model)
    assert (found.final, found.calls, found.note) == ("42", 4, "found right after 1 revisions")
    assert last_words(model.asked[2]).startswith("It is one more.")


def test_a_critique_that_says_neither_ends_it_and_is_told() -> None:
    found = solved("reflection", ["41", "What a fine answer!"])
    assert (found.text, found.calls) == ("41", 2)
    assert found.note == "stopped in round 1: the critique says neither right nor wrong"


def test_rounds_are_bounded() -> None:
    answers = [text for number in range(50) for text in (f"{number}", "Verdict: wrong. No.")]
    found = solved("reflection(rounds=3)", answers)
    assert (found.final, found.calls, found.note) == ("3", 7, "not checked after 3 rounds")


def test_a_model_that_repeats_itself_is_stopped() -> None:
    found = solved("reflection(rounds=9)", ["30"], resources=NEAR)
    assert (found.final, found.calls) == ("30", 2) and "repeats itself" in found.note


def test_only_the_last_attempts_are_shown() -> None:
    model = InLoop([str(number) for number in range(30, 40)])
    solved("reflection(rounds=5, memory=2)", model, resources=NEAR)
    shown = [turn.content for turn in model.asked[5] if turn.role == "assistant"]
    assert shown == ["33", "34"]


def test_verifier_by_name_and_no_reason() -> None:
    model = InLoop(["Yes, it is", "no", "So it must be 42", "yes"])
    found = solved("reflection(verifier=self-judged)", model)
    assert found.text == "So it must be 42" and "said no" in last_words(model.asked[2])


def test_a_spent_budget_gives_the_best_so_far() -> None:
    found = solved("reflection", ["40", "20", "10"], resources=NEAR, budget=Budget(calls=2))
    assert (found.status, found.final) == ("budget", "40")
    first = solved("reflection", ["41"], budget=Budget(calls=1))
    assert (first.status, first.final) == ("budget", "41")
