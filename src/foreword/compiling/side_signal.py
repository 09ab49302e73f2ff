"""A dictionary beside the prompt: the gate of a side signal, from what softmax merging would give or learned from questions.

A gate belongs to a model and a way of making dictionaries, not to one dictionary: it is learned on some and used with others.

Axes: L layer, Q query head.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from foreword.compiling.observer import Observer, Silent
from foreword.engine import Differentiable, Row, TakesSideSignal
from foreword.errors import ConfigError, NonFiniteLoss
from foreword.prefix.side_signal import SideSignal
from foreword.tuning.trainer import BatchOrder, Schedule
from foreword.types import Message

if TYPE_CHECKING:
    from foreword.prefix.artifact import Prefix

LEARNING_RATE = 0.02
WARMUP_STEPS, HOLD_SHARE = 5, 0.5
CLIP = 1.0
"""Largest norm of a step's gradient."""


class ListeningEngine(TakesSideSignal, Differentiable, Protocol):
    """A model that consults a side signal and shows how its answers change with the gate."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lesson:
    """A dictionary as side signal (its gate does not matter), and questions about it with their answers."""

    side: SideSignal
    rows: tuple[Row, ...]


def lesson(engine: ListeningEngine, prefix: Prefix, questions: Sequence[tuple[str, str]]) -> Lesson:
    """A lesson from a dictionary's prefix and (question, answer) pairs, each rendered as it stands alone."""
    rows = tuple(
        Row(prompt=engine.render((Message(role="user", content=question),)), targets=(engine.answer_ids(answer),))
        for question, answer in questions
    )
    return Lesson(side=SideSignal.of(prefix, torch.zeros(engine.geometry.layers, engine.query_heads)), rows=rows)


def gate_of_shares(engine: TakesSideSignal, lessons: Sequence[Lesson]) -> Tensor:
    """The gate with which adding comes nearest to merging in one softmax, in closed form (`Shares.fitted_LQ`), float32 on the CPU.

    Raises:
        ConfigError: there are no lessons.
    """
    _check(lessons)
    gates = [engine.shares_beside(lesson.rows, lesson.side).fitted_LQ.cpu() for lesson in lessons]
    weight = [sum(row.fed_tokens for row in lesson.rows) for lesson in lessons]
    summed_LQ = sum((share * gate_LQ for share, gate_LQ in zip(weight, gates, strict=True)), torch.zeros_like(gates[0]))
    return summed_LQ / sum(weight)


def learned_gate(
    engine: ListeningEngine,
    lessons: Sequence[Lesson],
    start_LQ: Tensor,
    *,
    steps: int = 100,
    batch: int = 8,
    learning_rate: float = LEARNING_RATE,
    seed: int = 0,
    by_share: bool = False,
    observer: Observer = Silent(),  # noqa: B008 (stateless)
) -> Tensor:
    """A gate under which the lessons' answers become likely: float32, on the CPU. No weight of the model changes.

    Args:
        start_LQ: where to start, such as `gate_of_shares`.
        batch: rows a step, all of one lesson; lessons are drawn in proportion to their rows.
        by_share: learn a gate for merging by share, to compare with: the dictionary as an ordinary prefix with a bias for each head.

    Raises:
        ConfigError: there are no lessons.
        NonFiniteLoss: the loss became NaN or infinite.
    """
    _check(lessons)
    gate_LQ = start_LQ.detach().to(engine.module.device, torch.float32).clone().requires_grad_()
    optimiser = torch.optim.Adam([gate_LQ], lr=learning_rate)
    schedule = Schedule(peak=learning_rate, warmup=min(WARMUP_STEPS, steps), hold=int(HOLD_SHARE * steps), total=steps)
    orders = [BatchOrder(lesson.rows, batch_targets=batch, seed=seed + number) for number, lesson in enumerate(lessons)]
    turns = random.Random(seed).choices(range(len(lessons)), [len(lesson.rows) for lesson in lessons], k=steps)
    observer.stage("learning the gate", steps)
    for step, turn in enumerate(turns):
        for group in optimiser.param_groups:
            group["lr"] = schedule.at(step)
        optimiser.zero_grad()
        rows, side = orders[turn].batch(turns[:step].count(turn)), lessons[turn].side.gated(gate_LQ)
        loss = -engine.target_log_probs_beside(rows, side, by_share=by_share).mean()
        if not torch.isfinite(loss):
            raise NonFiniteLoss(f"The gate's loss became {float(loss)} at step {step}. Lower the learning rate ({learning_rate:g}).")
        loss.backward()
        torch.nn.utils.clip_grad_norm_([gate_LQ], CLIP)
        optimiser.step()
        observer.advance(1)
    return gate_LQ.detach().cpu()


def _check(lessons: Sequence[Lesson]) -> None:
    if not any(lesson.rows for lesson in lessons):
        raise ConfigError("A gate is learned from questions about a dictionary; there are none. Give at least one lesson with a row.")
