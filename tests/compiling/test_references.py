"""What a model is heard to ask of a text."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from foreword.api import compile_text, load
from foreword.compiling import references
from foreword.compiling.observer import Silent

TEXT = "Aromi serves Chinese food in the city centre. The Eagle is a cheap coffee shop near the river. " * 3


@pytest.fixture(scope="module")
def model(tiny_model_folder: Any) -> Any:
    return load(str(tiny_model_folder("llama")), dtype="float32")


def collected(model: Any, **options: Any) -> references.References:
    engine = model.engine
    prefix = compile_text(model, TEXT)
    token_ids = (engine.tokenizer.bos_token_id, *engine.encode(TEXT))
    return references.collect(engine, token_ids, prefix, **{"kept": 40, "questions": 3, "seed": 0, "observer": Silent(), **options})


def test_the_text_is_read_again_in_full(model: Any):
    found = collected(model)
    read = [token for row in found.reading_rows for token in row.targets[0]]
    assert tuple(read[1:]) == model.engine.encode(TEXT)


def test_queries_of_all_heads_in_every_layer(model: Any):
    found, geometry = collected(model), model.engine.geometry
    heads = model.engine.module.config.num_attention_heads // geometry.kv_heads
    layers, kv_heads, queries, head_dim = found.reading.query_LHMD.shape
    assert (layers, kv_heads, head_dim) == (geometry.layers, geometry.kv_heads, geometry.head_dim)
    assert 40 * heads <= queries <= (40 + len(found.reading_rows)) * heads
    assert found.reading.beside_LHM.shape == (layers, kv_heads, queries)
    assert found.asking is not None
    asked = sum(len(row.prompt) + len(row.targets[0]) for row in found.asking_rows)
    assert found.asking.query_LHMD.shape[2] == asked * heads
    assert found.all.query_LHMD.shape[2] == queries + asked * heads


def test_no_questions(model: Any):
    found = collected(model, questions=0)
    assert found.asking is None and found.asking_rows == () and found.all is found.reading


def test_every_question_has_an_answer_of_at_least_one_token(model: Any):
    rows = collected(model, questions=5).asking_rows
    assert len(rows) == 5 and all(row.targets[0] for row in rows)


def test_draws_follow_from_the_seed(model: Any):
    first, again, other = (collected(model, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first.all.query_LHMD, again.all.query_LHMD)
    assert first.asking_rows == again.asking_rows != other.asking_rows
