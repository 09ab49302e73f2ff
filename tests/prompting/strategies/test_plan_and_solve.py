"""`plan-and-solve`."""

from __future__ import annotations

from asking import InLoop, last_words, solved
from foreword.prompting.strategy import Budget
from foreword.types import Sampling


def plan(steps: int) -> str:
    return "Plan:\n" + "\n".join(f"{number}. do part {number}" for number in range(1, steps + 1))


def test_plan_then_steps_then_result() -> None:
    model = InLoop([plan(2), "part one is 20", "part two is 22", "Answer: 42"])
    found = solved("plan-and-solve", model)
    assert (found.final, found.calls, found.note) == ("42", 4, "")
    second = last_words(model.asked[2])
    assert "part one is 20" in second and "do part 2" in second and second.startswith("What is 6 times 7?")
    assert "part two is 22" in last_words(model.asked[3])
    (span,) = found.trace.of_kind("plan")
    assert span.attributes["steps"] == ["do part 1", "do part 2"]
    assert found.trace.spans[span.id].parent == span.id, "the call for the plan stands under it"


def test_a_long_plan_is_cut_and_told() -> None:
    found = solved("plan-and-solve(most_steps=2)", [plan(50), "a", "b", "Answer: 42"], sampling=Sampling(max_new_tokens=1_000))
    assert found.calls == 4 and found.note == "48 of 50 steps left out"


def test_other_lists_are_read_too() -> None:
    found = solved("plan-and-solve", ["- first add\n* then double", "a", "b", "Answer: 42"])
    assert found.calls == 4
    assert solved("plan-and-solve", ["Step 1: add\nStep 2) double", "a", "b", "Answer: 42"]).calls == 4


def test_a_model_that_plans_nothing_is_asked_at_once() -> None:
    model = InLoop(["I would rather not", "so it is 42\nAnswer: 42"])
    found = solved("plan-and-solve", model)
    assert (found.final, found.calls) == ("42", 2) and "no list of steps" in found.note
    assert "make a plan" in last_words(model.asked[1])


def test_single_asks_for_the_result_only_where_it_is_missing() -> None:
    assert solved("plan-and-solve(way=single)", ["Plan, so 42.\nAnswer: 42"]).calls == 1
    two = solved("plan-and-solve(way=single)", ["Plan, so it is much", "42"])
    assert (two.final, two.calls) == ("42", 2)


def test_a_spent_budget_gives_the_steps_so_far() -> None:
    found = solved("plan-and-solve", [plan(3), "part one is 20"], budget=Budget(calls=2))
    assert (found.status, found.final, found.note) == ("budget", "part one is 20", "1 of 3 steps")
