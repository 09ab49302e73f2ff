"""`self-consistency`: the vote, and when it stops."""

from __future__ import annotations

import pytest

from asking import InLoop, last_words, solved
from foreword.errors import ConfigError
from foreword.prompting.strategy import Budget, Resources
from foreword.prompting.template import Shot


def samples(letters: str) -> list[str]:
    """One sample for each letter; `-` is one without an answer."""
    return ["I do not know" if letter == "-" else f"Reason {place}.\nAnswer: {letter}" for place, letter in enumerate(letters)]


def test_fixed_draws_all_and_takes_the_majority() -> None:
    model = InLoop(samples("abbab" + "b" * 3))
    found = solved("self-consistency(n=8, adaptive=false)", model)
    assert (found.final, found.calls, found.candidates) == ("b", 8, ("a", "b"))
    assert found.text == "Reason 1.\nAnswer: b", "the first text of the majority"
    assert found.note == "6 of 8 votes after 8 of 8 samples"
    assert {sampling.temperature for sampling in model.samplings} == {0.7}
    assert len({sampling.seed for sampling in model.samplings}) == 8, "each sample is another draw"
    assert "step by step" in last_words(model.asked[0])


def test_agreement_ends_it_early() -> None:
    found = solved("self-consistency(n=40, batch=1, rule=beta)", samples("aaaa"))
    assert (found.final, found.calls) == ("a", 4)
    assert found.note == "4 of 4 votes after 4 of 40 samples"


def test_disagreement_goes_on() -> None:
    agreed = solved("self-consistency(n=40, batch=1)", samples("aaaaa"))
    split = solved("self-consistency(n=40, batch=1)", samples("ab" * 20))
    assert agreed.calls < 8 and split.calls > 30


def test_certainty_draws_until_the_vote_cannot_turn() -> None:
    found = solved("self-consistency(n=9, batch=1, confidence=1)", samples("aaaaaaaaa"))
    assert found.calls == 5


def test_least_and_batch() -> None:
    assert solved("self-consistency(n=40, batch=4, least=10)", samples("a")).calls == 10
    assert solved("self-consistency(n=6, batch=4, confidence=1)", samples("ab")).calls == 6, "the last batch is what is left"


def test_samples_without_an_answer_do_not_vote() -> None:
    found = solved("self-consistency(n=5, adaptive=false)", samples("-a--b"))
    assert found.final == "a" and found.note == "1 of 2 votes after 5 of 5 samples; 3 without an answer that can be recognised"
    assert found.candidates == ("I do not know", "a", "b"), "the first sample is told whatever it is, so that it can be judged alone"


def test_a_model_that_never_answers_ends_bounded_and_told() -> None:
    found = solved("self-consistency(n=40)", samples("-"))
    assert (found.status, found.calls, found.text) == ("failed", 8, "I do not know")
    assert "None of 8 samples" in found.reason
    assert solved("self-consistency(n=12, adaptive=false)", samples("-")).calls == 12


@pytest.mark.parametrize("adaptive", ["true", "false"])
def test_a_spent_budget_gives_the_majority_so_far(adaptive: str) -> None:
    found = solved(f"self-consistency(n=40, adaptive={adaptive}, confidence=1)", samples("abbbb"), budget=Budget(calls=5))
    assert (found.status, found.final, found.calls) == ("budget", "b", 5)
    assert "5 calls" in found.reason and found.note == "4 of 5 votes after 5 of 40 samples"


def test_a_budget_that_ends_after_the_vote_is_settled_is_no_failure() -> None:
    found = solved("self-consistency(n=9, batch=9, confidence=1)", samples("a"), budget=Budget(calls=5))
    assert (found.status, found.final) == ("answered", "a")


def test_readings_and_asking_as_it_is() -> None:
    model = InLoop(["(A)", "(B)", "(A)"])
    found = solved("self-consistency(n=3, adaptive=false, think=false, reading=last-line)", model)
    assert found.final == "(A)" and last_words(model.asked[0]) == "What is 6 times 7?"
    assert solved("self-consistency(n=3, adaptive=false, reading=number)", ["so 42 it is", "that makes 42.0", "41"]).final == "42"


def test_worked_examples() -> None:
    model = InLoop(samples("a"))
    solved("self-consistency(n=2, shots=1)", model, resources=Resources(shots=(Shot(user="q", assistant="Answer: r"),)))
    assert [turn.content for turn in model.asked[0]] == ["q", "Answer: r", "What is 6 times 7?"]
    with pytest.raises(ConfigError, match="0 stand by"):
        solved("self-consistency(shots=1)", ["42"])
