"""The figure that chooses, against the plain way to compute it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from foreword.engine import Row
from foreword.errors import TuningError
from foreword.tuning.dev_loss import DevLoss
from foreword.types import Example, Message


@pytest.fixture
def keys_values(engine):
    return engine.read(engine.encode("You are a helpful assistant."))


def dev_loss(engine, data, **fields) -> DevLoss:
    return DevLoss(engine, data, **{"prompt_format": "continuation", "room": 400, "limit": 100, "seed": 0, **fields})


def alone(engine, keys_values, example, completion) -> torch.Tensor:
    row = Row(prompt=engine.render(example.messages, prompt_format="continuation"), targets=(engine.answer_ids(completion),))
    with torch.no_grad():
        return engine.target_log_probs([row], *keys_values)


def test_without_labels_it_is_the_mean_over_target_tokens(engine, texts, keys_values):
    each = torch.cat([alone(engine, keys_values, example, example.completions[0]) for example in texts])
    assert dev_loss(engine, texts)(*keys_values) == pytest.approx(-float(each.mean()), rel=1e-4)


def test_with_labels_it_is_the_cross_entropy_between_them(engine, labelled, keys_values):
    total = 0.0
    for example in labelled:
        scores = torch.stack([alone(engine, keys_values, example, label).sum() for label in labelled.labels])
        total -= float(scores.log_softmax(0)[labelled.labels.index(example.completions[0])])
    assert dev_loss(engine, labelled)(*keys_values) == pytest.approx(total / len(labelled), rel=1e-4)


def test_it_keeps_no_graph(engine, texts, keys_values):
    leaves = [tensor.clone().requires_grad_() for tensor in keys_values]
    assert isinstance(dev_loss(engine, texts)(*leaves), float)
    assert all(leaf.grad is None for leaf in leaves)


def test_a_limit_takes_the_same_examples_for_the_same_seed(engine, texts, keys_values):
    first, again, other = (dev_loss(engine, texts, limit=5, seed=seed)(*keys_values) for seed in (1, 1, 2))
    assert first == again != other


@pytest.mark.parametrize("kind", ["texts", "labelled"])
def test_long_examples_are_left_out_and_counted(engine, keys_values, kind, request):
    data = request.getfixturevalue(kind)
    long = Example(messages=(Message(role="user", content="long " * 90),), completions=(data.examples[0].completions[0],), line=99)
    with_long = dev_loss(engine, data.with_examples([*data.examples, long]), room=100)
    without = dev_loss(engine, data, room=100)
    assert (with_long.left_out, without.left_out) == (1, 0)
    assert with_long(*keys_values) == pytest.approx(without(*keys_values), rel=1e-6)


@pytest.mark.parametrize("kind", ["texts", "labelled"])
def test_data_of_which_nothing_fits_are_refused(engine, kind, request):
    data = request.getfixturevalue(kind)
    with pytest.raises(TuningError, match=rf"dev data \({kind}.jsonl\) fits into the 3 positions"):
        dev_loss(engine, replace(data, path=f"{kind}.jsonl"), room=3)
