"""What a prefix is trained on."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from foreword.api import load
from foreword.compiling import study
from foreword.compiling.divergence import mean_divergence
from foreword.engine import Row


@pytest.fixture(scope="module")
def engine(tiny_model_folder: Any) -> Any:
    return load(str(tiny_model_folder("llama")), dtype="float32").engine


def rows(engine: Any, word: str, count: int) -> list[Row]:
    return [Row(prompt=engine.encode(f"{word} {number}"), targets=(engine.encode(" is cheap."),)) for number in range(count)]


def test_rows_about_the_text_and_unrelated_ones_each_with_its_own_teacher(engine: Any):
    key_LHND, value_LHND = engine.read(engine.encode("The Eagle is a cheap coffee shop."))
    reading, asking = rows(engine, "Place", 30), rows(engine, "Where", 10)
    found = study.taught_rows(engine, key_LHND, value_LHND, reading, asking)
    unrelated = {row: found[row] for row in found if row not in [*reading, *asking]}
    assert len(found) == 42 and len(unrelated) == 2
    about = {row: found[row] for row in [*reading, *asking]}
    assert mean_divergence(engine, about, key_LHND, value_LHND).max() < 1e-4
    # The teacher saw nothing before them, so that behind the text they do not look the same.
    behind = mean_divergence(engine, unrelated, key_LHND, value_LHND)
    assert torch.isfinite(behind).all() and behind.max() > 1e-3
