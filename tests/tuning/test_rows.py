"""From examples to rows, and what does not fit."""

from __future__ import annotations

import pytest

from foreword.errors import WindowError
from foreword.tuning.rows import encode_examples
from foreword.types import Example, Message


def example(prompt: str, *completions: str, line: int = 0) -> Example:
    return Example(messages=(Message(role="user", content=prompt),), completions=completions, line=line)


def encode(engine, examples, **fields):
    return encode_examples(engine, examples, **{"prompt_format": "continuation", "room": 400, **fields})


def test_examples_that_share_a_conversation_become_one_row(engine):
    rows = encode(engine, [example("a", "x", "y"), example("b", "z"), example("a", "w")]).rows
    assert [len(row.targets) for row in rows] == [3, 1]
    assert rows[0].prompt == engine.render(example("a", "x").messages, prompt_format="continuation")
    assert rows[0].targets == tuple(engine.answer_ids(text) for text in "xyw")


def test_a_long_example_is_named_by_its_line(engine):
    examples = [example("short", "x", line=3), example("long " * 90, "x", line=7)]
    with pytest.raises(WindowError, match=r"Line 7: .* 60 fit after the prefix\. .*--on-long skip.*--on-long truncate"):
        encode(engine, examples, room=60)


def test_long_examples_are_skipped_and_counted_once_each(engine):
    examples = [example("short", "x", line=3), example("long " * 90, "x", "y", line=7), example("long " * 91, "x", line=7)]
    encoded = encode(engine, examples, room=60, on_long="skip")
    assert len(encoded.rows) == 1 and encoded.long_lines == (7, 7)


def test_a_long_answer_is_cut_to_what_fits(engine):
    examples = [example("short", "many words " * 40, line=1), example("long " * 90, "x", line=2)]
    encoded = encode(engine, examples, room=60, on_long="truncate")
    (row,) = encoded.rows
    whole = engine.answer_ids(examples[0].completions[0])
    assert len(row.prompt) + len(row.targets[0]) == 60 and row.targets[0] == whole[: len(row.targets[0])]
    assert encoded.long_lines == (1, 2)


def test_an_example_that_just_fits_is_whole(engine):
    prompt = engine.render(example("short", "x").messages, prompt_format="continuation")
    room = len(prompt) + len(engine.answer_ids("some words"))
    assert encode(engine, [example("short", "some words")], room=room).long_lines == ()
    with pytest.raises(WindowError):
        encode(engine, [example("short", "some words")], room=room - 1)
