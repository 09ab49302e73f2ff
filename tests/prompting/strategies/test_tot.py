"""Tree of thoughts: on the script that knows arithmetic it solves puzzles; on models that do not play along it ends, and says how."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from foreword.engines import scripted
from foreword.engines.scripted import ScriptedEngine
from foreword.errors import ConfigError, RegistryError, ServingError
from foreword.prompting import model, strategy, verifier
from foreword.prompting.strategy import Budget, Resources, Solved
from foreword.prompting.verifier import Verdict
from foreword.prompting.verifiers.game24 import judge, question
from foreword.types import Completion, Message, Sampling

NUMBERS = (4, 9, 10, 13)
PUZZLE = question(NUMBERS)
GAME = {"decomposition": "game24", "evaluations": 1}


def solved(
    engine: Any, asked: str = PUZZLE, *, resources: Resources | None = None, budget: Budget | None = None, **settings: Any
) -> Solved:
    async def work() -> Solved:
        asking = model.of(engine)
        try:
            conversation = [Message(role="system", content="Be brief."), Message(role="user", content=asked)]
            way = strategy.get("tot", **settings)
            return await strategy.solve(way, conversation, asking, resources=resources, budget=budget or Budget(calls=2_000))
        finally:
            await asking.close()

    return asyncio.run(work())


def says(answers: Callable[[str], str]) -> ScriptedEngine:
    """A model that answers the last message."""
    return ScriptedEngine(lambda conversation, sampling: answers(conversation[-1].content))


def purposes(found: Solved) -> Counter[Any]:
    return Counter(span.attributes["purpose"] for span in found.trace.of_kind("call"))


@pytest.mark.parametrize("search", ["bfs", "dfs"])
@pytest.mark.parametrize("evaluator", ["value", "vote", "none"])
@pytest.mark.parametrize("verify", ["game24", ""])
def test_exact_thoughts_and_judgements_solve_the_puzzle(search: str, evaluator: str, verify: str) -> None:
    unjudged = evaluator == "none"
    wide = {"beam": None, "expansions": 1_000} if unjudged else {}
    found = solved(scripted.load("arithmetic"), search=search, evaluator=evaluator, verifier=verify, **GAME, **wide)
    assert found.status == "answered", found.reason
    if verify or not unjudged:
        assert judge(NUMBERS, found.final).passed and judge(NUMBERS, found.text).passed
        assert found.final in found.candidates
        assert found.text.splitlines()[-1] == f"Answer: {found.final}" and len(found.text.splitlines()) == 4
    else:
        # Nobody says which end is right, so the first is taken.
        assert not judge(NUMBERS, found.final).passed
    expected = {"value": {"propose", "value"}, "vote": {"propose", "vote"}, "none": {"propose"}}[evaluator]
    assert set(purposes(found)) == expected


def test_sampled_thoughts_solve_it_too_and_are_drawn_apart() -> None:
    found = solved(scripted.load("arithmetic"), generator="sample", width=40, verifier="game24", **GAME)
    assert judge(NUMBERS, found.final).passed and purposes(found)["sample"] == 40 * len(found.trace.of_kind("search"))
    assert found.calls == sum(purposes(found).values())
    assert found.text == solved(scripted.load("arithmetic"), generator="sample", width=40, verifier="game24", **GAME).text


def test_every_expansion_is_a_span_that_tells_what_became_of_its_thoughts() -> None:
    found = solved(scripted.load("arithmetic"), verifier="game24", beam=3, **GAME)
    expansions = [span.attributes for span in found.trace.of_kind("search")]
    assert found.note.startswith(f"{len(expansions)} expansions, ")
    assert [expansions[0][key] for key in ("node", "depth", "state")] == [0, 0, "4 9 10 13"]
    thoughts = [thought for one in expansions for thought in one["thoughts"]]  # type: ignore[union-attr]
    assert {thought["status"] for thought in thoughts} == {"kept", "pruned", "repeated", "failed", "solved"}
    assert [thought["state"] for thought in thoughts if thought["solution"]] == ["4 * 6 = 24 (left: 24)"]
    kept = {thought["node"] for thought in thoughts if thought["status"] == "kept"}
    assert {one["node"] for one in expansions} <= kept | {0}
    assert all(thought["value"] == 20 for thought in thoughts if thought["status"] == "kept")
    assert {thought["value"] for thought in thoughts} == {20, 0.001, None}
    assert len(kept) == 3 + 1
    calls = {span.parent for span in found.trace.of_kind("call")}
    assert calls <= {span.id for kind in ("search", "check") for span in found.trace.of_kind(kind)}


def test_equal_states_are_judged_once() -> None:
    asked: Counter[str] = Counter()
    exact = scripted.load("arithmetic")

    def counting(conversation: Sequence[Message], sampling: Sampling) -> str:
        asked[conversation[-1].content] += 1
        return exact.generate([conversation], sampling=sampling)[0].text

    solved(ScriptedEngine(counting), question((6, 6, 6, 8)), **GAME)
    assert set(asked.values()) == {1}


def test_a_value_is_the_mean_of_its_judgements() -> None:
    words = iter(["sure", "impossible", "I cannot tell", "impossible"])

    def answers(asked: str) -> str:
        return "add them" if asked.endswith("and the answer.") else next(words, "Answer: 3")

    found = solved(says(answers), "What now?", evaluations=4, depth=1)
    (expansion,) = found.trace.of_kind("search")
    assert expansion.attributes["thoughts"][0]["value"] == pytest.approx((20 + 0.001 + 0.001) / 3)  # type: ignore[index,call-overload]
    assert [span.attributes["unread"] for span in found.trace.of_kind("check")] == [1]


def test_steps_in_free_text_end_with_an_answer() -> None:
    def answers(asked: str) -> str:
        if "one word: sure" in asked:
            return "sure" if "Multiply" in asked else "impossible"
        if "The solution so far" in asked:
            return "It is 12. Answer: 12\nIt is 13. Answer: 13" if "Multiply" in asked else "Answer: 7"
        return "1. Multiply 3 by 4.\n2. Add 3 and 4."

    found = solved(says(answers), "How many legs have three cats?", evaluations=2)
    assert (found.final, found.status) == ("12", "answered")
    assert found.text == "Multiply 3 by 4.\nIt is 12. Answer: 12"
    assert found.candidates == ("12", "13")


def test_a_path_without_an_answer_is_asked_for_one() -> None:
    def answers(asked: str) -> str:
        if asked.endswith("begins with `Answer:`."):
            assert "1. think" in asked
            return "All in all.\nAnswer: 42"
        return "likely" if "one word: sure" in asked else "think"

    found = solved(says(answers), "What is it?", depth=2, evaluations=1)
    assert found.final == "42" and found.text == "think\nthink\nAll in all.\nAnswer: 42" and found.candidates == ("42",)
    assert "no path ended within the depth" in found.note and purposes(found)["answer"] == 1


@pytest.mark.parametrize("search", ["bfs", "dfs"])
def test_a_check_that_nothing_passes_leaves_the_best_rated_answer(search: str) -> None:
    async def wants_seven(conversation: Sequence[Message], answer: str, ask: verifier.Ask) -> Verdict:
        return Verdict(score=0.5 if "Answer: 7" in answer else 0.0, reason="not quite")

    engine = says(lambda asked: "likely" if "one word: sure" in asked else "Guess. Answer: 5\nCount. Answer: 7\nHope. Answer: 9")
    found = solved(engine, "How many?", search=search, resources=Resources(verify=wants_seven))
    assert found.final == "7" and found.candidates == ("5", "7", "9") and found.status == "answered"
    assert "nothing was left" in found.note
    checks = [span.attributes for span in found.trace.of_kind("check") if span.name == "verifier"]
    assert [(check["text"], check["score"]) for check in checks] == [
        ("Guess. Answer: 5", 0.0),
        ("Count. Answer: 7", 0.5),
        ("Hope. Answer: 9", 0.0),
    ]


def test_a_check_that_is_named_comes_before_the_one_that_stands_by() -> None:
    async def nothing(conversation: Sequence[Message], answer: str, ask: verifier.Ask) -> Verdict:
        return Verdict(score=0.0)

    exact = scripted.load("arithmetic")
    assert "a path passed the check" not in solved(exact, resources=Resources(verify=nothing), **GAME).note
    assert "a path passed the check" in solved(exact, verifier="game24", resources=Resources(verify=nothing), **GAME).note


@pytest.mark.parametrize(
    "text",
    ["", "I would rather not.", "\n\n\n", "{" * 1_000, "1. 2. 3.", "4 + 9 = 99\n" * 500],
    ids=["empty", "refusal", "blank", "braces", "bullets", "wrong"],
)
def test_a_model_that_never_writes_a_step_is_asked_plainly_in_the_end(text: str) -> None:
    found = solved(says(lambda asked: text), **GAME)
    assert found.status == "answered" and found.calls == 2
    assert purposes(found) == {"propose": 1, "answer": 1} and "nothing was left" in found.note


def test_a_model_that_writes_without_end_is_cut() -> None:
    endless = "\n".join(f"step {number}" for number in range(100_000))
    engine = says(lambda asked: "likely" if "one word: sure" in asked else endless)
    found = solved(engine, "Why?", tokens=300_000, width=64, depth=2, expansions=3, evaluations=1)
    assert found.status == "answered" and all(len(span.attributes["thoughts"]) <= 64 for span in found.trace.of_kind("search"))  # type: ignore[arg-type]


def test_unreadable_judgements_prune_nothing() -> None:
    found = solved(says(lambda asked: "hmm" if "one word: sure" in asked else "go on"), "Why?", depth=3, evaluations=2)
    assert len(found.trace.of_kind("search")) == 3
    assert [span.attributes["unread"] for span in found.trace.of_kind("check")] == [2, 2, 2]


@pytest.mark.parametrize(("vote", "kept"), [("Best: 2", ["b", "a"]), ("the best is 9", ["a", "b"]), ("?", ["a", "b"])])
def test_votes_rank_and_unreadable_ones_do_not(vote: str, kept: list[str]) -> None:
    engine = says(lambda asked: vote if "`Best:`" in asked else "a\nb")
    found = solved(engine, "Why?", evaluator="vote", depth=1, least=0.0)
    (expansion,) = found.trace.of_kind("search")
    thoughts: Any = expansion.attributes["thoughts"]
    assert [thought["state"] for thought in sorted(thoughts, key=lambda thought: -thought["value"])] == kept
    assert purposes(found)["vote"] == 5


def test_by_default_it_ends_within_what_an_answer_may_take() -> None:
    game = solved(scripted.load("arithmetic"), decomposition="game24", verifier="game24", budget=Budget())
    assert game.status == "answered" and judge(NUMBERS, game.final).passed
    steps = itertools.count()
    engine = says(lambda asked: "likely" if "one word: sure" in asked else "\n".join(f"step {next(steps)}" for _ in range(9)))
    general = solved(engine, "Why?", budget=Budget(calls=64))
    assert general.status == "answered" and general.note == "10 expansions, 50 thoughts; no path ended within the depth"


def test_expansions_are_limited() -> None:
    found = solved(scripted.load("arithmetic"), verifier="game24", expansions=2, **GAME)
    assert len(found.trace.of_kind("search")) == 2 and "no more expansions were allowed" in found.note
    assert found.status == "answered" and judge(NUMBERS, found.final).passed and purposes(found)["answer"] == 1


def test_a_spent_budget_ends_with_the_best_so_far() -> None:
    found = solved(scripted.load("arithmetic"), verifier="game24", budget=Budget(calls=45), **GAME)
    assert found.status == "budget" and "45 calls" in found.reason and found.calls == 45
    assert found.text == "10 - 4 = 6 (left: 6 9 13)" and "broken off" in found.note
    assert any(thought["status"] == "kept" for span in found.trace.of_kind("search") for thought in span.attributes["thoughts"])  # type: ignore[union-attr,index,call-overload]


def test_an_engine_that_fails_half_way_is_told_and_the_trace_keeps_the_tree() -> None:
    exact = scripted.load("arithmetic")

    def failing(conversation: Sequence[Message], sampling: Sampling) -> str:
        if "Numbers left: 6 9 13\nNext steps" in conversation[-1].content:
            raise ServingError("the machine is on fire")
        return exact.generate([conversation], sampling=sampling)[0].text

    found = solved(ScriptedEngine(failing), **GAME)
    assert (found.status, found.reason) == ("failed", "the machine is on fire")
    assert found.trace.of_kind("search")[0].attributes["thoughts"]


def test_a_question_of_another_kind_is_refused_by_the_game() -> None:
    found = solved(scripted.load("arithmetic"), "What is the capital of Peru?", **GAME)
    assert found.status == "failed" and "gives no numbers" in found.reason and found.calls == 0


def test_thoughts_are_drawn_their_way_and_the_answer_as_the_caller_wants() -> None:
    seen: dict[str, Sampling] = {}

    def answers(conversation: Sequence[Message], sampling: Sampling) -> str:
        kind = (
            "value"
            if "one word: sure" in conversation[-1].content
            else "answer"
            if "last line that begins" in conversation[-1].content
            else "thought"
        )
        seen[kind] = sampling
        assert conversation[0] == Message(role="system", content="Be brief.")
        return "likely" if kind == "value" else "x"

    solved(ScriptedEngine(answers), "Why?", depth=1, tokens=33, temperature=0.4)
    assert {kind: (one.temperature, one.max_new_tokens) for kind, one in seen.items()} == {
        "thought": (0.4, 33),
        "value": (0.4, 33),
        "answer": (0.0, 128),
    }


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"search": "sideways"}, ConfigError),
        ({"beam": 0}, ConfigError),
        ({"least": float("nan")}, ConfigError),
        ({"colour": "red"}, ConfigError),
        ({"decomposition": "chess"}, RegistryError),
        ({"verifier": "astrology"}, RegistryError),
    ],
)
def test_settings_that_cannot_be_used_are_refused(settings: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        solved(scripted.load("arithmetic"), **settings)


def test_it_is_written_as_text_and_its_trace_as_json() -> None:
    way = strategy.parse("tot(decomposition=game24, search=dfs, beam=null, least=0.5)")
    assert str(way) == "tot(decomposition=game24, search=dfs, beam=null, least=0.5)"
    assert all(json.loads(line) for line in solved(scripted.load("arithmetic"), **GAME).trace.lines())


def test_many_searches_run_on_one_loop() -> None:
    async def work() -> list[Solved]:
        asking, way = model.of(scripted.load("arithmetic")), strategy.get("tot", search="dfs", verifier="game24", **GAME)
        puzzles = [(4, 9, 10, 13), (3, 3, 8, 8), (1, 5, 5, 5), (1, 1, 4, 6)] * 4
        found = await strategy.together(
            [strategy.solve(way, [Message(role="user", content=question(numbers))], asking) for numbers in puzzles]
        )
        await asking.close()
        return found

    found = asyncio.run(work())
    assert [one.status for one in found] == ["answered"] * 16
    assert [one.text for one in found[:4]] == [one.text for one in found[4:8]] and len({one.text for one in found}) == 4


class _Slow:
    """A model that never comes back."""

    name = "slow"

    async def answer(self, conversation: Sequence[Message], sampling: Sampling) -> Completion:
        await asyncio.Event().wait()
        raise AssertionError("unreachable")

    async def close(self) -> None:
        return None


def test_a_model_that_hangs_is_given_up_when_the_seconds_are_spent() -> None:
    way = strategy.get("tot", **GAME)
    found = asyncio.run(strategy.solve(way, [Message(role="user", content=PUZZLE)], _Slow(), budget=Budget(seconds=0.05)))
    assert found.status == "budget" and "seconds" in found.reason and found.text == ""
