"""`random`: numbers of the right size behind a real sink."""

from __future__ import annotations

import pytest
import torch

from foreword.errors import TuningError
from foreword.tuning.initialisations.random import DEFAULT_POSITIONS, start
from foreword.types import Message


def test_the_sink_is_real_and_the_rest_is_drawn_from_the_seed(engine, context_for):
    key_LHND, value_LHND = engine.read(engine.render_context((Message(role="system", content="Say it."),)))
    one, same, other = (start(context_for(positions=9, seed=seed)) for seed in (0, 0, 1))
    for made in (one, other):
        assert torch.equal(made.key_LHND[:, :, 0], key_LHND[:, :, 0]) and torch.equal(made.value_LHND[:, :, 0], value_LHND[:, :, 0])
    assert torch.equal(one.key_LHND, same.key_LHND) and torch.equal(one.value_LHND, same.value_LHND)
    assert not (one.key_LHND[:, :, 1:] == other.key_LHND[:, :, 1:]).any()


def test_the_size_is_that_of_a_real_text(engine, context_for):
    real = engine.read(engine.render_context((Message(role="system", content="Say it."),)))
    made = start(context_for(positions=200))
    for tensor, text in ((made.key_LHND, real[0]), (made.value_LHND, real[1])):
        ratio = tensor[:, :, 1:].std(dim=2) / text[:, :, 1:].std(dim=2)
        assert float(ratio.min()) > 0.7 and float(ratio.max()) < 1.3


@pytest.mark.parametrize("positions", [1, 2, 40])
def test_positions_are_exact_when_asked(context_for, positions):
    assert start(context_for(positions=positions)).positions == positions


def test_positions_by_default_leave_room(context_for):
    assert start(context_for()).positions == DEFAULT_POSITIONS
    assert start(context_for(room=10)).positions == 10


def test_more_positions_than_there_is_room_for_are_refused(context_for):
    with pytest.raises(TuningError, match="40 positions are wanted; 10 leave room"):
        start(context_for(positions=40, room=10))
