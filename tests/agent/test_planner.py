"""Plans, and what models write in their place."""

from __future__ import annotations

from typing import Any

import pytest

from agents import done
from foreword.agent.planner import Plan, Planner, Task, read
from foreword.errors import WindowError
from foreword.types import Completion, Usage

NONE = Plan()


def shown(plan: Plan | None) -> list[tuple[int, str, str]]:
    assert plan is not None
    return [(task.id, task.status, task.text) for task in plan.tasks]


@pytest.mark.parametrize(
    "text",
    [
        "- [ ] find the price\n- [x] greet",
        "Sure, here is the plan:\n\n1. [ ] find the price\n2. [X] greet\n\nGood luck!",
        "* [todo] find the price\n* [done] greet",
        "[ ] find the price\n[x] greet",
        '```json\n[{"task": "find the price", "status": "todo"}, {"task": "greet", "status": "done"}]\n```',
        '[{"text": "greet", "status": "done", "priority": 2}, {"text": "find the price", "priority": 1}]',
        "- [x] greet (priority 2)\n- [ ] find the price (priority 1)",
    ],
)
def test_the_usual_forms_are_read(text: str):
    assert [(status, wording) for _, status, wording in shown(read(text, before=NONE))] == [("todo", "find the price"), ("done", "greet")]


@pytest.mark.parametrize("text", ["", "I have no plan.", "{}", "[1, 2]", "[" * 5000, "-\n- \n*", "[]"])
def test_what_is_no_list_is_no_plan(text: str):
    assert read(text, before=NONE) is None


def test_tasks_keep_their_ids_and_take_their_new_order():
    before = read("- [ ] find the price\n- [ ] write to Anna\n- [ ] close the case", before=NONE)
    assert before is not None
    after = read("- [ ] write to Anna about it\n- [ ] ask Ben\n- [x] find the price", before=before)
    assert shown(after) == [(2, "todo", "write to Anna about it"), (4, "todo", "ask Ben"), (1, "done", "find the price")]
    assert [task.priority for task in (after.tasks if after else ())] == [1, 2, 3]


def test_what_is_done_stays_done_where_it_is_left_out():
    before = Plan(tasks=(Task(id=1, text="find the price", status="done"), Task(id=2, text="write to Anna")))
    assert shown(read("1. write to Anna", before=before)) == [(2, "todo", "write to Anna"), (1, "done", "find the price")]


def test_a_plan_is_bounded():
    plan = read("\n".join(f"- [ ] task number {number} {'x' * 1000}" for number in range(500)), before=NONE, most=5)
    assert plan is not None and len(plan.tasks) == 5 and all(len(task.text) <= 200 for task in plan.tasks)


def test_open_tasks():
    plan = Plan(tasks=(Task(id=1, text="a", status="done"), Task(id=2, text="b", status="doing"), Task(id=3, text="c", status="dropped")))
    assert [task.text for task in plan.open()] == ["b"]
    assert plan.render() == "- [x] a\n- [>] b\n- [-] c"


def asking(answer: str | Exception) -> tuple[Any, list[str]]:
    asked: list[str] = []

    async def ask(conversation: Any, **changes: Any) -> Completion:
        asked.append(conversation[-1].content)
        if isinstance(answer, Exception):
            raise answer
        return Completion(text=answer, token_ids=(), usage=Usage(prompt_tokens=1, completion_tokens=1), finish_reason="stop", seconds=0.0)

    return ask, asked


def test_one_call_makes_and_one_revises():
    ask, asked = asking("- [ ] find the price")
    made = done(Planner().make("Goal: know it.", ask))
    assert shown(made.plan) == [(1, "todo", "find the price")] and made.note == ""
    revised = done(Planner().revised(made.plan, "Goal: know it.", "Observation: 7", ask))
    assert revised.plan == made.plan and len(asked) == 2
    assert "- [ ] find the price" in asked[1] and "Observation: 7" in asked[1]


@pytest.mark.parametrize("answer", ["No.", WindowError("Too long.")])
def test_what_cannot_be_read_leaves_the_plan(answer: str | Exception):
    plan = Plan(tasks=(Task(id=1, text="a"),))
    planned = done(Planner().revised(plan, "Goal", "step", asking(answer)[0]))
    assert planned.plan == plan and planned.note
