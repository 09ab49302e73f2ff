"""What a text loses when it is made smaller."""

from __future__ import annotations

from typing import Any

import pytest

from foreword.api import load
from foreword.compiling.observer import Silent
from foreword.compiling.report import METHODS, drawn, report
from foreword.compiling.settings import CompileSettings
from foreword.errors import PrefixError, WindowError

TEXT = "Aromi serves Chinese food in the city centre.\nThe Eagle is a cheap coffee shop near the river. " * 4


@pytest.fixture(scope="module")
def engine(tiny_model_folder: Any) -> Any:
    return load(str(tiny_model_folder("llama")), dtype="float32").engine


def test_every_method_at_every_size_and_the_text_itself_first(engine: Any):
    found = report(engine, TEXT, settings=CompileSettings(questions=4), observer=Silent(), ratios=(4, 8))
    text, *others = found.lines
    assert (text.method, text.positions) == ("text", found.tokens)
    assert text.nats < 1e-4 and text.gain > 0.99
    assert [line.method for line in others] == [*METHODS, *METHODS]
    assert [line.positions for line in others[:: len(METHODS)]] == [round(found.tokens / 4), round(found.tokens / 8)]
    assert all(line.nats > 0 and line.gain < 1 and line.prefills > 0 for line in others)
    assert all(line.nbytes == text.nbytes * line.positions // text.positions for line in others)
    assert 1 <= found.questions <= 4


def test_sizes_that_a_short_text_has_not(engine: Any):
    found = report(engine, "A cheap coffee shop.", settings=CompileSettings(questions=4), observer=Silent(), ratios=(2, 1000))
    assert {line.positions for line in found.lines[1:]} == {round(found.tokens / 2)}


def test_a_text_that_cannot_be_compared_with(engine: Any):
    with pytest.raises(WindowError, match="Report on a part of it"):
        report(engine, TEXT * 6, settings=CompileSettings(questions=4), observer=Silent())
    with pytest.raises(PrefixError, match="empty"):
        report(engine, " ", settings=CompileSettings(), observer=Silent())


def test_the_picture(engine: Any):
    picture = drawn(report(engine, TEXT, settings=CompileSettings(questions=4), observer=Silent(), ratios=(8,)))
    assert picture is not None and picture.startswith(b"\x89PNG")
