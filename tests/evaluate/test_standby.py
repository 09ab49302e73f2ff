from __future__ import annotations

import asyncio
import dataclasses

import pytest

from foreword.data.dataset import Dataset
from foreword.errors import EvaluationError
from foreword.evaluate.standby import MOST_SHOTS, every, resources_of
from foreword.evaluate.task import Task, load_task, make_task
from foreword.types import Example, Message


def row(number: int) -> Example:
    return Example(messages=(Message(role="user", content=f"case {number}"),), completions=(f"answer {number}", "other"))


@pytest.fixture
def plain() -> Task:
    return make_task("plain", train=Dataset.of([row(number) for number in range(400)]), dev=Dataset.of([row(900), row(901)]))


def test_shots_are_training_rows_and_the_seeds(plain: Task) -> None:
    found = resources_of(plain, seed=1)
    assert len(found.shots) == MOST_SHOTS
    train = {(example.prompt, example.completions[0]) for example in plain.train}
    assert {(shot.user, shot.assistant) for shot in found.shots} <= train
    assert found.shots == resources_of(plain, seed=1).shots != resources_of(plain, seed=2).shots
    assert (found.verify, len(found.tools)) == (None, 0)


def test_a_tasks_verifier_and_tools_stand_by() -> None:
    found = resources_of(load_task("game24(rows=2, train_rows=2)"), seed=0)
    assert found.verify is not None and list(found.tools.by_name) == ["calculator"]
    observation = asyncio.run(found.tools.call("calculator", {"expression": "6 * 4"}))
    assert (observation.text, observation.ok) == ("24", True)


def test_every_is_what_needs_no_training_and_can_run(plain: Task) -> None:
    without, with_tools = every(plain), every(load_task("game24(rows=2, train_rows=2)"))
    assert {"zero-shot", "few-shot:8", "cot", "self-consistency"} <= set(without)
    assert "react" not in without and "react" in with_tools
    assert "few-shot:2" in with_tools, "no more examples than there are"
    assert not {"lora", "prefix", "strategy"} & set(with_tools)
    assert len(set(without)) == len(without)


def test_without_training_rows_there_is_nothing_to_show(plain: Task) -> None:
    bare = dataclasses.replace(plain, train=Dataset.of([]))
    assert not any(name.startswith("few-shot") for name in every(bare))


def test_a_tool_that_needs_settings_is_refused(plain: Task) -> None:
    with pytest.raises(EvaluationError, match="needs settings that a task cannot give"):
        resources_of(dataclasses.replace(plain, tools=("sql",)), seed=0)
