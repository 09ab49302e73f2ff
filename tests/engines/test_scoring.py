"""Log-probabilities as plain numbers: the same with tokens computed before all rows as with them in every row."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from foreword.engine import Row, Scores
from foreword.engines.transformers import load
from foreword.errors import WindowError


@pytest.mark.parametrize("family", ["llama", "gemma3_text"])
def test_tokens_before_all_rows(tiny_model_folder: Any, family: Any):
    engine = load(str(tiny_model_folder(family)), dtype="float32")
    assert isinstance(engine, Scores)
    shared = engine.encode("what stands before every row of them")
    prompts, targets = [engine.encode(text) for text in ("one", "another row")], (engine.encode("yes it is"), engine.encode("no"))
    whole = engine.log_probs([Row(prompt=(*shared, *prompt), targets=targets) for prompt in prompts])
    told: list[int] = []
    parted = engine.log_probs([Row(prompt=prompt, targets=targets) for prompt in prompts], after=shared, progress=told.append)
    assert sum(told) == 2 and [len(row) for row in whole] == [2, 2]
    for row, other in zip(whole, parted, strict=True):
        for values, others, target in zip(row, other, targets, strict=True):
            assert len(values) == len(target) and values == pytest.approx(others, abs=1e-4)


def test_they_are_those_of_the_engine(tiny_model_folder: Any):
    engine = load(str(tiny_model_folder("llama")), dtype="float32")
    row = Row(prompt=engine.encode("some text"), targets=(engine.encode("and more"), ()))
    with torch.inference_mode():
        wanted = engine.target_log_probs([row]).tolist()
    ((first, second),) = engine.log_probs([row])
    assert list(first) == pytest.approx(wanted) and second == ()


def test_a_row_without_a_prompt(tiny_model_folder: Any):
    engine = load(str(tiny_model_folder("llama")), dtype="float32")
    with pytest.raises(WindowError, match="prompt is empty"):
        engine.log_probs([Row(prompt=(), targets=((1,),))])
