"""What a prefix is trained on."""

from __future__ import annotations

from typing import Any

import torch

from foreword.api import load
from foreword.compiling import study
from foreword.compiling.divergence import mean_divergence
from foreword.engine import Row


def test_rows_about_the_text_and_unrelated_ones_each_with_its_own_teacher(tiny_model_folder: Any):
    engine = load(str(tiny_model_folder("llama")), dtype="float32").engine
    key_LHND, value_LHND = engine.read(engine.encode("The Eagle is a cheap coffee shop."))
    related = [Row(prompt=engine.encode(f"Place {number}"), targets=(engine.encode(" is cheap."),)) for number in range(40)]
    taught = study.taught_rows(engine, key_LHND, value_LHND, related)
    unrelated = {row: taught[row] for row in taught if row not in related}
    assert len(taught) - len(unrelated) == 40 and len(unrelated) == 2
    about = {row: taught[row] for row in related}
    assert mean_divergence(engine, about, key_LHND, value_LHND).max() < 1e-4
    # With nothing before them, unrelated rows look the same to teacher and student but for the start of the conversation.
    behind = mean_divergence(engine, unrelated, key_LHND, value_LHND)
    assert torch.isfinite(behind).all() and behind.max() > 1e-3
