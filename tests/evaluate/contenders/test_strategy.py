from __future__ import annotations

import asyncio

import pytest

from foreword.engines.scripted import ScriptedEngine
from foreword.errors import ConfigError, RegistryError
from foreword.evaluate.contender import Context, Solver
from foreword.evaluate.contenders import strategy
from foreword.evaluate.contenders.strategy import REASONING_TOKENS, ROWS_AT_ONCE
from foreword.evaluate.task import Task
from foreword.prompting.strategy import Solved
from foreword.types import Message, Sampling


def prepared(engine: object, task: Task, argument: str, **fields: object):
    context = Context(
        engine=engine,
        task=task,
        argument=argument,
        budget_seconds=1.0,
        seed=3,
        clock="wall",
        store_root=None,
        scratch=None,  # type: ignore[arg-type]
        report=lambda stage: None,
        **fields,  # type: ignore[arg-type]
    )
    return strategy.prepare(context)


def answers(solver: Solver, conversations: list[tuple[Message, ...]]) -> list[Solved]:
    found: dict[int, Solved] = {}
    solver.solve(conversations, take=found.__setitem__)
    return [found[place] for place in range(len(conversations))]


def test_rows_are_solved_by_the_strategy_with_the_instruction_first(generation_task: Task) -> None:
    engine = ScriptedEngine(
        lambda conversation, sampling: f"{conversation[0].content}|{conversation[-1].content}|{sampling.max_new_tokens}"
    )
    made = prepared(engine, generation_task, "zero-shot")
    conversations = [made.conversations(example) for example in generation_task.dev]
    solved = answers(made.solver, conversations)
    made.solver.close()
    assert [one.final for one in solved] == [f"Describe the place.|{row.prompt}|6" for row in generation_task.dev]
    assert all(one.status == "answered" and one.calls == 1 for one in solved)
    assert "strategy zero-shot, at most 200 calls" in made.notes[0]


def test_a_classification_has_room_to_reason_and_the_seed_is_the_contexts(classification_task: Task) -> None:
    seen: list[Sampling] = []

    def script(conversation: object, sampling: Sampling) -> str:
        seen.append(sampling)
        return "billing"

    for _ in range(2):
        made = prepared(ScriptedEngine(script), classification_task, "zero-shot")
        answers(made.solver, [made.conversations(classification_task.dev.examples[0])])
        made.solver.close()
    assert seen[0].max_new_tokens == REASONING_TOKENS
    assert seen[0] == seen[1], "the same question is drawn with the same seed"


def test_the_budget_of_calls_ends_a_row_and_not_the_table(generation_task: Task) -> None:
    engine = ScriptedEngine(lambda conversation, sampling: f"{sampling.seed}")
    made = prepared(engine, generation_task, "self-consistency(n=6)", budget_calls=2)
    (one,) = answers(made.solver, [made.conversations(generation_task.dev.examples[0])])
    made.solver.close()
    assert (one.status, one.calls, engine.calls) == ("budget", 2, 2)


def test_all_rows_are_under_way_together(generation_task: Task) -> None:
    """Each row's answer comes only once every row of the first lot has asked."""
    waiting = asyncio.Event()

    class Gate:
        name = "gate"

        def __init__(self) -> None:
            self.asked = 0

        async def answer(self, conversation: object, sampling: Sampling):
            self.asked += 1
            if self.asked == ROWS_AT_ONCE:
                waiting.set()
            await waiting.wait()
            return ScriptedEngine(lambda *_: "fine").generate([conversation], sampling=sampling)[0]  # type: ignore[list-item]

        async def close(self) -> None: ...

    made = prepared(ScriptedEngine(lambda *_: "unused"), generation_task, "zero-shot")
    made.solver._model = Gate()
    conversation = made.conversations(generation_task.dev.examples[0])
    assert len(answers(made.solver, [conversation] * (ROWS_AT_ONCE + 6))) == ROWS_AT_ONCE + 6
    made.solver.close()


def test_a_served_engine_answers_and_is_left_as_it_was(make_context, generation_task: Task) -> None:
    context = make_context(argument="zero-shot")
    made = strategy.prepare(context)
    conversations = [made.conversations(example) for example in generation_task.dev]
    made.solver.warm_up()
    solved = answers(made.solver, conversations)
    made.solver.close()
    alone = context.engine.generate(conversations, sampling=Sampling(max_new_tokens=6))
    assert [one.text for one in solved] == [completion.text for completion in alone]
    assert [one.usage.prompt_tokens for one in solved] == [completion.usage.prompt_tokens for completion in alone]


def test_what_a_strategy_cannot_do_without_is_said(generation_task: Task) -> None:
    made = prepared(ScriptedEngine(lambda *_: "x"), generation_task, "react")
    with pytest.raises(ConfigError, match="calls tools, and there are none"):
        answers(made.solver, [made.conversations(generation_task.dev.examples[0])])
    made.solver.close()


@pytest.mark.parametrize(("argument", "error"), [(None, ConfigError), ("cot(x=1)", ConfigError), ("magic", RegistryError)])
def test_an_argument_that_is_no_strategy_is_refused(argument: str | None, error: type[Exception]) -> None:
    with pytest.raises(error):
        strategy.check(argument)
