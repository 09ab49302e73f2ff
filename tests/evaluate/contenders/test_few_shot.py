from __future__ import annotations

import pytest

from foreword.errors import ConfigError, EvaluationError, WindowError
from foreword.evaluate.contenders import few_shot


def test_the_shots_are_turns_between_instruction_and_input(make_context) -> None:
    context = make_context(argument="3")
    example = context.task.dev.examples[0]
    turns = few_shot.prepare(context).conversations(example)
    assert [turn.role for turn in turns] == ["system", *["user", "assistant"] * 3, "user"]
    assert turns[-1:] == example.messages
    answers = {row.prompt: row.completions[0] for row in context.task.train}
    assert all(answers[asked.content] == told.content for asked, told in zip(turns[1:-1:2], turns[2:-1:2], strict=True))


def test_labels_are_balanced_and_the_seed_decides(make_context, classification_task) -> None:
    def shots(seed: int) -> list[str]:
        context = make_context(argument="4", task=classification_task, seed=seed)
        turns = few_shot.prepare(context).conversations(classification_task.dev.examples[0])
        return [turn.content for turn in turns[1:-1]]

    first = shots(0)
    assert sorted(first[1::2]) == ["billing", "billing", "login", "login"]
    assert first == shots(0)
    assert first != shots(1)


def test_eight_is_the_default(make_context) -> None:
    context = make_context()
    turns = few_shot.prepare(context).conversations(context.task.dev.examples[0])
    assert [turn.role for turn in turns].count("assistant") == 8


def test_a_block_that_does_not_fit_is_refused_with_a_smaller_one_to_try(make_context) -> None:
    with pytest.raises(WindowError, match=r"20 examples and the longest dev input.*few-shot:10"):
        few_shot.prepare(make_context(argument="20"))


def test_more_shots_than_rows_are_refused(make_context) -> None:
    with pytest.raises(EvaluationError, match="21 examples were asked for and the training data has 20"):
        few_shot.prepare(make_context(argument="21"))


@pytest.mark.parametrize("argument", ["0", "-1", "two", "1.5", "²"])
def test_an_argument_that_is_no_count_is_refused(argument: str) -> None:
    with pytest.raises(ConfigError, match="whole number of examples"):
        few_shot.check(argument)
