"""Rows of slots: what is in them survives growth and moves."""

from __future__ import annotations

import torch

from foreword.engines._slots import SlotPool


def pool(**bounds):
    shape = {"layers": 2, "heads": 3, "head_dim": 4, "dtype": torch.float32, "device": torch.device("cpu")}
    return SlotPool(**(shape | {"most_rows": 9, "most_slots": 200} | bounds))


def test_growth_keeps_what_is_there_and_stays_within_the_bounds():
    made = pool()
    made.ensure(2, 10)
    key_LGND, value_LGND = torch.randn(2, 2, 3, 7, 4).unbind()
    made.put(1, key_LGND, value_LGND)
    made.ensure(9, 200)
    assert (made.rows, made.slots) == (9, 200)
    assert torch.equal(torch.stack(made.key_RGSD)[:, 1, :, :7], key_LGND)
    assert torch.equal(torch.stack(made.value_RGSD)[:, 1, :, :7], value_LGND)
    assert not torch.stack(made.key_RGSD)[:, 1, :, 7:].any(), "slots never written must hold numbers"


def test_a_row_moves_over_another():
    made = pool()
    made.ensure(3, 8)
    key_LGND, value_LGND = torch.randn(2, 2, 3, 5, 4).unbind()
    made.put(2, key_LGND, value_LGND)
    made.move(2, 0, 5)
    assert torch.equal(torch.stack(made.key_RGSD)[:, 0, :, :5], key_LGND)
    assert torch.equal(torch.stack(made.value_RGSD)[:, 0, :, :5], value_LGND)


def test_release_gives_everything_back():
    made = pool()
    made.ensure(4, 100)
    made.release()
    assert made.rows == made.slots == 0 and not any(tensor.numel() for tensor in made.key_RGSD)
    made.ensure(1, 1)
    assert made.rows and made.slots
