"""The rivals' training loop, on a toy and on a tiny model."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from foreword.engine import Row
from foreword.errors import EvaluationError, NonFiniteLoss
from foreword.evaluate.contenders import _training
from foreword.evaluate.contenders._training import IGNORED, Lesson, Pair, Trainee, answer_loss, batches, stock_attention, train

PAIRS = [Pair(prompt=tuple(range(1, 2 + n % 5)), target=tuple(range(3, 5 + n % 3))) for n in range(40)]


class Toy(nn.Module):
    """One number that wants to be 3."""

    def __init__(self) -> None:
        super().__init__()
        self.number = nn.Parameter(torch.zeros(1))

    def loss(self, pairs: Sequence[Pair]) -> tuple[Tensor, int]:
        tokens = sum(len(pair.target) for pair in pairs)
        return (self.number - 3.0).square().sum() * tokens, tokens


def trainee_of(toy: Toy, folder: Path) -> Trainee:
    return Trainee(module=toy, parameters={"number": toy.number}, loss=toy.loss, folder=folder)


LESSON = Lesson(fit=PAIRS[:30], selection=PAIRS[30:], skipped=0)


def test_it_picks_the_rate_that_learns_and_keeps_the_best_state(make_context, tmp_path: Path) -> None:
    toy, context = Toy(), make_context(budget_seconds=0.5)
    trained = train(trainee_of(toy, tmp_path), LESSON, rates=(1e-6, 0.3), context=context, start=context.now())
    assert (trained.probed, trained.rate) == (True, 0.3)
    assert trained.best_loss == min(loss for _, _, loss in trained.history)
    assert (toy.number.item() - 3.0) ** 2 == pytest.approx(trained.best_loss, rel=1e-4, abs=1e-9)
    assert trained.best_loss < 0.1


def test_one_rate_needs_no_probe_and_even_no_time_gives_a_step(make_context, tmp_path: Path) -> None:
    stages: list[str] = []
    context = make_context(budget_seconds=1e-9, stages=stages)
    toy = Toy()
    trained = train(trainee_of(toy, tmp_path), LESSON, rates=(0.1,), context=context, start=context.now())
    assert trained.steps == 1
    assert toy.number.item() != 0
    assert stages == ["training at rate 0.1"]


def test_a_budget_too_short_for_probes_takes_the_default_rate_and_fewer_pairs(make_context, tmp_path: Path) -> None:
    toy, context = Toy(), make_context(budget_seconds=0.2)

    def slow_loss(pairs: Sequence[Pair]) -> tuple[Tensor, int]:
        time.sleep(0.02 * len(pairs))
        return toy.loss(pairs)

    judged: list[int] = []

    class Counting(Trainee):
        def selection_loss(self, pairs: Sequence[Pair]) -> float:
            judged.append(len(pairs))
            return super().selection_loss(pairs)

    trainee = Counting(module=toy, parameters={"number": toy.number}, loss=slow_loss, folder=tmp_path)
    trained = train(trainee, LESSON, rates=(0.1, 0.2), context=context, start=context.now())
    assert (trained.probed, trained.rate) == (False, 0.2)
    assert set(judged) == {_training.LEAST_SELECTION_PAIRS}
    assert "(the default)" in trained.notes()[0]


def test_a_loss_that_is_never_finite_is_an_error_and_names_the_rates(make_context, tmp_path: Path) -> None:
    toy, context = Toy(), make_context()
    broken = Trainee(
        module=toy, parameters={"number": toy.number}, loss=lambda pairs: (toy.number.sum() * math.nan, len(pairs)), folder=tmp_path
    )
    with pytest.raises(NonFiniteLoss, match=r"0\.1, 0\.2"):
        train(broken, LESSON, rates=(0.1, 0.2), context=context, start=context.now())


def test_a_rate_that_explodes_loses_to_one_that_does_not(make_context, tmp_path: Path) -> None:
    toy, context = Toy(), make_context(budget_seconds=0.3)

    def loss(pairs: Sequence[Pair]) -> tuple[Tensor, int]:
        total, tokens = toy.loss(pairs)
        return (total * math.nan if toy.number.item() > 100 else total), tokens

    trainee = Trainee(module=toy, parameters={"number": toy.number}, loss=loss, folder=tmp_path)
    trained = train(trainee, LESSON, rates=(1e4, 0.2), context=context, start=context.now())
    assert trained.rate == 0.2
    assert math.isfinite(trained.best_loss)


def test_an_epoch_has_every_pair_once_and_the_seed_decides_the_order() -> None:
    def epoch(seed: int) -> list[list[Pair]]:
        return list(itertools.islice(batches(PAIRS, seed), math.ceil(len(PAIRS) / _training.PAIRS_PER_STEP)))

    flat = [pair for batch in epoch(0) for pair in batch]
    assert sorted(flat, key=hash) == sorted(PAIRS, key=hash)
    assert epoch(0) == epoch(0)
    assert epoch(0) != epoch(1)
    assert all(len(batch) <= _training.PAIRS_PER_STEP for batch in epoch(0))


def test_long_pairs_are_computed_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_training, "TOKENS_PER_FORWARD", 16)
    parts = list(_training._parts(PAIRS[:7]))
    assert [pair for part in parts for pair in part] == PAIRS[:7]
    assert all(len(part) * max(pair.length for pair in PAIRS[:7]) <= 16 for part in parts)


@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma3_text", "gpt2", "gpt_neox"])
def test_the_answers_loss_is_the_engines(make_context, family: str) -> None:
    engine = make_context(family=family).engine
    rows = [Row(prompt=pair.prompt, targets=(pair.target,)) for pair in PAIRS[:6]]
    with torch.no_grad():
        expected = -engine.target_log_probs(rows).sum()
        with stock_attention(engine.module):
            total, tokens = answer_loss(engine.module)(PAIRS[:6])
    assert tokens == sum(len(pair.target) for pair in PAIRS[:6])
    torch.testing.assert_close(total, expected, rtol=1e-4, atol=1e-3)


def test_stock_attention_is_undone_even_after_an_error(make_context) -> None:
    module = make_context().engine.module
    before = module.config._attn_implementation
    with pytest.raises(RuntimeError, match="on purpose"), stock_attention(module):
        assert module.config._attn_implementation in _training.STOCK_ATTENTION
        raise RuntimeError("on purpose")
    assert module.config._attn_implementation == before


def test_a_lesson_leaves_out_what_does_not_fit_and_says_so(make_context) -> None:
    context = make_context()

    def conversations(example):
        return example.messages

    everything = _training.lesson(context, conversations, room=context.engine.window)
    assert (everything.skipped, everything.notes()) == (0, ())
    longest = max(pair.length for pair in everything.fit)
    shorter = _training.lesson(context, conversations, room=longest - 1)
    assert shorter.skipped > 0
    assert "longer than the window" in shorter.notes()[0]
    with pytest.raises(EvaluationError, match="No training pair fits the 3 positions"):
        _training.lesson(context, conversations, room=3)


def test_selection_never_sees_a_fitted_prompt(make_context) -> None:
    lesson = _training.lesson(make_context(), lambda example: example.messages, room=512)
    assert not {pair.prompt for pair in lesson.fit} & {pair.prompt for pair in lesson.selection}
    assert IGNORED < 0
