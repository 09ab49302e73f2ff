"""`text:FILE` and `text:words`: a system message read exactly."""

from __future__ import annotations

import pytest
import torch

from foreword.errors import TuningError
from foreword.tuning.initialisations.text import start
from foreword.types import Message


def read(engine, text: str):
    return engine.read(engine.render_context((Message(role="system", content=text),)))


def test_words_are_read_as_they_stand(engine, context_for):
    made = start(context_for(argument="Answer: briefly, please."))
    assert torch.equal(made.key_LHND, read(engine, "Answer: briefly, please.")[0])
    assert made.prompt_format == "continuation" and made.used == frozenset()


def test_a_file_is_read(engine, context_for, tmp_path):
    file = tmp_path / "house style.txt"
    file.write_text("Wir antworten höflich.", encoding="utf-8")
    made = start(context_for(argument=str(file)))
    assert torch.equal(made.value_LHND, read(engine, "Wir antworten höflich.")[1])


def test_without_an_argument_it_is_the_instruction(engine, context_for):
    assert torch.equal(start(context_for()).key_LHND, read(engine, "Say it.")[0])


def test_a_short_text_is_said_again_until_it_is_long_enough(engine, context_for):
    made = start(context_for(argument="Be kind.", positions=40))
    assert made.positions == 40 and made.positions > read(engine, "Be kind.")[0].shape[2]
    said = read(engine, "\n".join(["Be kind."] * 8))[1]
    assert (made.value_LHND[0, 0, :, None] == said[0, 0][None]).all(-1).any(-1).all()


def test_a_text_that_leaves_no_room_is_refused(context_for):
    with pytest.raises(TuningError, match=r"The initial text has \d+ tokens; 20 leave room"):
        start(context_for(argument="long " * 50, room=20))


def test_a_file_that_is_not_utf8_is_refused(context_for, tmp_path):
    file = tmp_path / "latin.txt"
    file.write_bytes("höflich".encode("latin-1"))
    with pytest.raises(TuningError, match=r"latin\.txt is not UTF-8 text \(byte 1\)"):
        start(context_for(argument=str(file)))
