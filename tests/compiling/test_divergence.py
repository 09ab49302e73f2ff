"""How far apart two answers are, and that training on it brings them together."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from foreword.api import load
from foreword.compiling.divergence import Divergence, divergence, mean_divergence, teach
from foreword.engine import Row


@pytest.fixture(scope="module")
def engine(tiny_model_folder: Any) -> Any:
    return load(str(tiny_model_folder("llama")), dtype="float32").engine


@pytest.fixture(scope="module")
def rows(engine: Any) -> list[Row]:
    texts = (("Where is", " the Eagle?"), ("Which place is", " cheap and near"), ("Say", " no"))
    return [Row(prompt=engine.encode(prompt), targets=(engine.encode(target),)) for prompt, target in texts]


@given(st.integers(0, 2**31 - 1), st.integers(1, 6))
def test_merging_tokens_only_makes_it_smaller(seed: int, candidates: int):
    draw = torch.Generator().manual_seed(seed)
    teacher_TV, student_TV = (torch.randn(3, 6, generator=draw).log_softmax(-1) for _ in range(2))
    ids_TC = teacher_TV.topk(candidates).indices
    merged_T = divergence(teacher_TV.gather(1, ids_TC), student_TV.gather(1, ids_TC))
    whole_T = (teacher_TV.exp() * (teacher_TV - student_TV)).sum(-1)
    assert (merged_T <= whole_T + 1e-4).all()
    assert (merged_T >= -1e-4).all()


def test_an_answer_is_no_distance_from_itself(engine: Any, rows: list[Row]):
    key_LHND, value_LHND = engine.read(engine.encode("The Eagle is a cheap coffee shop."))
    taught = teach(engine, rows, key_LHND, value_LHND, count=16)
    assert mean_divergence(engine, taught, key_LHND, value_LHND).abs().max() < 1e-4
    assert (mean_divergence(engine, taught, None, None) > 1e-3).all()


def test_rows_keep_their_order(engine: Any, rows: list[Row]):
    key_LHND, value_LHND = engine.read(engine.encode("The Eagle is a cheap coffee shop."))
    together = mean_divergence(engine, teach(engine, rows, key_LHND, value_LHND), None, None)
    alone = torch.cat([mean_divergence(engine, teach(engine, [row], key_LHND, value_LHND), None, None) for row in rows])
    assert torch.allclose(together, alone, atol=1e-5)


def test_its_gradient_leads_to_the_teacher(engine: Any, rows: list[Row]):
    key_LHND, value_LHND = engine.read(engine.encode("The Eagle is a cheap coffee shop."))
    objective = Divergence(teach(engine, rows, key_LHND, value_LHND))
    key = (key_LHND + 0.2 * torch.randn_like(key_LHND)).requires_grad_()
    value = (value_LHND + 0.2 * torch.randn_like(value_LHND)).requires_grad_()
    optimiser = torch.optim.Adam([key, value], lr=0.02)
    losses = []
    for _ in range(20):
        optimiser.zero_grad()
        loss = objective.loss(engine, rows, key, value)
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 * losses[0]
