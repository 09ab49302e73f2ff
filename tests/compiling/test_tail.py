"""Exact strings of a text at the end of a smaller prefix."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from foreword.api import load
from foreword.compiling import tail
from foreword.compiling.compilers import compact, distil
from foreword.compiling.settings import CompileSettings
from foreword.engine import Row
from foreword.errors import ConfigError

TEXT = (
    "Orders are sent from Graz. Your order AB-4711 costs $17.50, and it is sent within 3 days.\n"
    'Ask for Maria Huber, who says "no questions asked" to every return. Write to help@larkspur.example or call 0316 555. '
) * 2


@pytest.fixture(scope="module")
def engine(tiny_model_folder: Any) -> Any:
    return load(str(tiny_model_folder("llama")), dtype="float32").engine


def test_what_counts_as_exact():
    assert [phrase.exact for phrase in tail.phrases(TEXT)] == [
        "AB-4711",
        "$17.50",
        "3 days",
        "Maria Huber",
        '"no questions asked"',
        "help@larkspur.example",
        "0316",
        "555",
    ]


def test_words_before_it_do_not_leave_the_sentence():
    by_exact = {phrase.exact: phrase.before for phrase in tail.phrases(TEXT)}
    assert by_exact["AB-4711"] == "Your order"
    assert by_exact["3 days"] == "and it is sent within"
    assert by_exact["help@larkspur.example"] == "Write to"


def test_a_phrase_counts_once_and_a_long_text_gives_only_so_many():
    assert len(tail.phrases("Room 12 is free. " * 3)) == 1
    assert len(tail.phrases(" ".join(f"Room {number} is free." for number in range(1000)))) == tail.MOST_PHRASES


@pytest.mark.parametrize("text", ["", "nothing exact in here", "\n\n"])
def test_a_text_without_exact_strings(text: str):
    assert tail.phrases(text) == []


def test_a_tail_is_what_the_model_reads_behind_the_prefix(engine: Any):
    token_ids = engine.encode(TEXT)
    whole = engine.read(token_ids)
    small = (whole[0][:, :, :8], whole[1][:, :, :8])
    (key_LHND, value_LHND), said = tail.append(engine, token_ids, whole, small, room=60)
    said_ids = engine.encode(tail.OPENING + said.removeprefix("Exact wording:").strip() + "\n")
    assert key_LHND.shape[2] == 8 + len(said_ids) <= 68
    row = Row(prompt=engine.encode("Where"), targets=(engine.encode(" is it?"),))
    behind = Row(prompt=said_ids + row.prompt, targets=row.targets)
    with torch.inference_mode():
        found = engine.target_log_probs([row], key_LHND, value_LHND)
        wanted = engine.target_log_probs([behind], *small)
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)


def test_what_fits_no_phrase_adds_nothing(engine: Any):
    token_ids = engine.encode(TEXT)
    whole = engine.read(token_ids)
    small = (whole[0][:, :, :8], whole[1][:, :, :8])
    for room in (0, 3):
        kept, said = tail.append(engine, token_ids, whole, small, room=room)
        assert said == "" and kept[0] is small[0]


@pytest.mark.parametrize("compiler", [compact, distil])
def test_a_prefix_with_a_tail_has_no_more_positions_than_asked_for(engine: Any, compiler: Any):
    settings = CompileSettings(positions=80, tail=60, questions=2, steps=2)
    prefix = compiler.compile_source(engine, TEXT, name="small", settings=settings)
    assert 20 < prefix.positions <= 80
    assert prefix.header.text_tail is not None and prefix.header.text_tail.startswith("Exact wording: ")


def test_a_text_in_parts_has_a_tail_in_each(engine: Any):
    long = TEXT + "and so on " * 20 + TEXT
    prefix = compact.compile_source(engine, long, name="small", settings=CompileSettings(positions=260, tail=200, questions=2))
    assert prefix.positions <= 260
    assert prefix.header.text_tail is not None and prefix.header.text_tail.count("Exact wording: ") >= 2


def test_a_tail_that_leaves_nothing_for_the_rest(engine: Any):
    with pytest.raises(ConfigError, match="leaves fewer than 2 of 10 positions"):
        compact.compile_source(engine, TEXT, name="small", settings=CompileSettings(positions=10, tail=9))
