"""Schedule, order of batches, and the steps of one trainer."""

from __future__ import annotations

import math

import pytest
import torch

from foreword.engine import Row
from foreword.errors import NonFiniteLoss
from foreword.tuning.objectives import lm
from foreword.tuning.parameters import ScaledOffsets
from foreword.tuning.rows import encode_examples
from foreword.tuning.trainer import BatchOrder, Schedule, Trainer

FLAT = Schedule(peak=0.05, warmup=1, hold=100, total=100)


def rows_with(*targets: int) -> list[Row]:
    return [Row(prompt=(number,), targets=((1,),) * count) for number, count in enumerate(targets)]


# --- schedule --------------------------------------------------------------------------------------------------


def test_the_rate_rises_holds_and_falls():
    schedule = Schedule(peak=1.0, warmup=4, hold=10, total=20, floor=0.1)
    assert [schedule.at(step) for step in range(5)] == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0])
    assert schedule.at(9) == schedule.at(10) == 1.0
    assert schedule.at(15) == pytest.approx(0.1 + 0.9 / 2)
    assert schedule.at(20) == schedule.at(30) == pytest.approx(0.1)
    falling = [schedule.at(step) for step in range(10, 21)]
    assert falling == sorted(falling, reverse=True)


def test_a_run_that_is_all_probe_keeps_its_rate():
    assert Schedule(peak=0.3, warmup=1, hold=5, total=5).at(7) == 0.3


# --- order -----------------------------------------------------------------------------------------------------


def test_every_row_comes_once_in_an_epoch():
    rows = rows_with(*[1] * 37)
    order = BatchOrder(rows, batch_targets=8, seed=3)
    for epoch in range(3):
        batches = [order.batch(step) for step in range(epoch * order.per_epoch, (epoch + 1) * order.per_epoch)]
        seen = [row.prompt[0] for batch in batches for row in batch]
        assert sorted(seen) == list(range(37))
        assert {len(batch) for batch in batches} <= {7, 8}


def test_epochs_differ_and_follow_from_seed_and_step_alone():
    rows = rows_with(*[1] * 40)
    steps = list(range(15))
    in_order = [BatchOrder(rows, batch_targets=8, seed=1).batch(step) for step in steps]
    backwards = BatchOrder(rows, batch_targets=8, seed=1)
    assert [backwards.batch(step) for step in reversed(steps)][::-1] == in_order
    assert in_order[:5] != in_order[5:10]
    assert [BatchOrder(rows, batch_targets=8, seed=2).batch(step) for step in steps] != in_order


def test_rows_count_by_their_targets():
    rows = rows_with(3, 1, 1, 3, 2, 1, 4, 1, 3, 1)
    order = BatchOrder(rows, batch_targets=5, seed=0)
    assert order.per_epoch == 4 and order.targets_per_step == 5.0
    batches = [order.batch(step) for step in range(4)]
    assert sorted(row.prompt[0] for batch in batches for row in batch) == list(range(10))
    assert all(sum(len(row.targets) for row in batch) <= 5 + 3 for batch in batches)


def test_a_row_with_more_targets_than_a_batch_leaves_none_empty():
    order = BatchOrder(rows_with(40, 1), batch_targets=8, seed=0)
    assert all(order.batch(step) for step in range(3 * order.per_epoch))


def test_data_smaller_than_a_batch_are_one_batch():
    order = BatchOrder(rows_with(1, 1, 1), batch_targets=16, seed=0)
    assert order.per_epoch == 1 and len(order.batch(0)) == len(order.batch(7)) == 3 and order.targets_per_step == 3


# --- steps -----------------------------------------------------------------------------------------------------


@pytest.fixture
def encoded(engine, texts):
    return encode_examples(engine, texts.examples, prompt_format="continuation", room=400).rows


@pytest.fixture
def begin(engine, encoded):
    """`begin(micro_tokens=...)`: a trainer at the keys and values of a text, always the same."""

    def make(objective=lm, schedule=FLAT, micro_tokens=1024, clip=1.0) -> Trainer:
        parameters = ScaledOffsets(*engine.read(engine.encode("The Eagle is a cheap pub.")))
        order = BatchOrder(encoded, batch_targets=8, seed=0)
        return Trainer(engine, objective, parameters, order, schedule, micro_tokens=micro_tokens, clip=clip)

    return make


def test_the_loss_falls_and_is_that_of_the_batch(engine, encoded, begin):
    trainer = begin()
    rows = BatchOrder(encoded, batch_targets=8, seed=0).batch(0)
    with torch.no_grad():
        before = lm.loss(engine, rows, *trainer.parameters.keys_values())
    records = []
    trainer.run(20, after_step=lambda record: not records.append(record))
    tokens = sum(len(target) for row in rows for target in row.targets)
    assert records[0].loss == pytest.approx(float(before) / tokens, rel=1e-5)
    assert (records[0].step, records[0].targets, records[0].target_tokens) == (1, 8, tokens)
    assert records[0].fed_tokens == sum(len(row.prompt) for row in rows) + tokens - 8
    assert sum(record.loss for record in records[-3:]) < 0.9 * sum(record.loss for record in records[:3])


def test_micro_batches_change_nothing_but_rounding(begin):
    whole, parts = begin(), begin(micro_tokens=48)
    whole.run(3)
    parts.run(3)
    for one, other in zip(whole.parameters.keys_values(), parts.parameters.keys_values(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3)


def test_a_trainer_stops_when_told(begin):
    trainer = begin()
    trainer.run(9, after_step=lambda record: record.step < 4)
    assert trainer.step == 4
    trainer.run(6)
    assert trainer.step == 6


def test_a_step_moves_by_the_rate_at_most(begin):
    trainer = begin(schedule=Schedule(peak=0.01, warmup=1, hold=9, total=9))
    trainer.run(1)
    for tensor in trainer.parameters.tensors().values():
        assert 0.009 < float(tensor.detach().abs().max()) < 0.0101


def test_gradients_are_clipped(begin):
    norms = []
    trainer = begin(clip=1e-3)
    trainer.run(1, after_step=lambda record: not norms.append(record.gradient_norm))
    total = math.sqrt(sum(float(tensor.grad.pow(2).sum()) for tensor in trainer.parameters.tensors().values()))
    assert norms[0] > 1e-3 and total == pytest.approx(1e-3, rel=1e-3)


def test_a_saved_state_goes_on_bit_for_bit(begin):
    whole, first, second = begin(), begin(), begin()
    whole.run(9)
    first.run(4)
    second.load_state(first.state(), step=4)
    second.run(9)
    for one, other in zip(whole.parameters.keys_values(), second.parameters.keys_values(), strict=True):
        assert torch.equal(one, other)


def test_a_saved_state_is_a_copy(begin):
    trainer = begin()
    trainer.run(2)
    state = trainer.state()
    kept = {name: tensor.clone() for name, tensor in state.items()}
    trainer.run(4)
    assert all(torch.equal(state[name], kept[name]) for name in kept)
    assert {name.partition(".")[0] for name in state} == {"key_offset", "value_offset"}


class FailsAt:
    """`lm`, until a call whose loss is not a number."""

    def __init__(self, call: int) -> None:
        self.call, self.calls = call, 0

    def loss(self, engine, rows, key_LHND, value_LHND):
        self.calls += 1
        loss = lm.loss(engine, rows, key_LHND, value_LHND)
        return loss * math.nan if self.calls == self.call else loss


def test_a_loss_that_is_not_finite_leaves_the_last_sound_parameters(begin):
    sound, failing = begin(), begin(objective=FailsAt(4))
    sound.run(3)
    with pytest.raises(NonFiniteLoss, match=r"step 4 .*--learning-rate"):
        failing.run(9)
    assert failing.step == 3
    for one, other in zip(sound.parameters.keys_values(), failing.parameters.keys_values(), strict=True):
        assert torch.equal(one, other)
