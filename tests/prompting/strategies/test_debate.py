"""`debate`: who sees what, and the vote."""

from __future__ import annotations

from asking import InLoop, last_words, solved
from foreword.prompting.strategy import Budget


def said(*letters: str) -> list[str]:
    return [f"I think {place}.\nAnswer: {letter}" for place, letter in enumerate(letters)]


def test_each_sees_the_others_answers_and_all_vote() -> None:
    model = InLoop(said("a", "b", "c", "a", "b", "b"))
    found = solved("debate", model)
    assert (found.final, found.calls, found.candidates) == ("b", 6, ("a", "b", "c"))
    assert found.note == "2 of 3 debaters after 2 rounds"
    second = model.asked[4]
    assert second[-2].content.endswith("Answer: b"), "its own"
    assert "Answer: a" in last_words(second) and "Answer: c" in last_words(second) and "Answer: b" not in last_words(second)
    assert [span.name for span in found.trace.of_kind("message")] == ["round 1", "round 2"]


def test_agreement_ends_it() -> None:
    assert solved("debate(debaters=2, rounds=5)", said("a", "b", "b", "b", "c")).calls == 4
    assert solved("debate(debaters=2, rounds=3, until_agreed=false)", said("a")).calls == 6


def test_one_without_an_answer_does_not_vote() -> None:
    found = solved("debate(rounds=1)", ["who knows", *said("a", "a")])
    assert (found.final, found.note) == ("a", "2 of 3 debaters after 1 rounds")
    assert found.candidates == ("who knows", "a"), "the first answer of all is told whatever it is"


def test_nobody_answers() -> None:
    found = solved("debate", ["who knows"])
    assert (found.status, found.calls, found.text) == ("failed", 6, "who knows") and "None of 3 debaters" in found.reason


def test_long_answers_are_shown_by_their_end() -> None:
    model = InLoop(["x" * 50_000 + "\nAnswer: a", "Answer: b"])
    solved("debate(debaters=2)", model)
    assert len(last_words(model.asked[3])) < 3_000 and "Answer: a" in last_words(model.asked[3])


def test_a_spent_budget_gives_the_vote_so_far() -> None:
    found = solved("debate(debaters=3)", said("a", "b", "b", "c"), budget=Budget(calls=4))
    assert (found.status, found.final) == ("budget", "b")
    assert found.note == "2 of 3 debaters after 2 rounds", "one has revised its answer, the others stand by theirs"
    assert found.candidates == ("a", "b", "c"), "of all rounds, as they came up"
