"""One training run: batches, optimiser, schedule, checkpoints. Everything it does is a function of seed and step.

Axes: L layer, H KV head, N virtual position, D head dimension.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from foreword.engine import Differentiable, Row
from foreword.errors import NonFiniteLoss
from foreword.tuning.objective import Objective
from foreword.tuning.parameters import PrefixParameters
from foreword.tuning.workers import Workers


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """Learning rate over a run: linear warm-up, constant until `hold`, then a cosine down to `floor` at `total`."""

    peak: float
    warmup: int
    hold: int
    total: int
    floor: float = 0.05

    def at(self, step: int) -> float:
        """Rate of the step that follows `step` finished ones."""
        if step < self.warmup:
            return self.peak * (step + 1) / self.warmup
        if step < self.hold or self.total <= self.hold:
            return self.peak
        done = min(1.0, (step - self.hold) / (self.total - self.hold))
        return self.peak * (self.floor + (1 - self.floor) * 0.5 * (1 + math.cos(math.pi * done)))


@dataclass(frozen=True, slots=True, kw_only=True)
class StepRecord:
    """What one step did."""

    step: int
    loss: float
    learning_rate: float
    targets: int
    target_tokens: int
    fed_tokens: int
    gradient_norm: float
    seconds: float


POOL = 8
"""Batches among which rows are put together by length."""


class BatchOrder:
    """Which rows make up which step: every epoch a new permutation, drawn from seed and epoch alone.

    Rows count by their targets: a batch holds rows until it has `batch_targets` targets. Within a pool of a few batches
    rows of like length come together, which spares padding, and the batches come in random order.
    """

    def __init__(self, rows: Sequence[Row], *, batch_targets: int, seed: int) -> None:
        self._rows, self._seed = rows, seed
        self._targets = [len(row.targets) for row in rows]
        self._epochs: dict[int, list[list[int]]] = {}
        self.per_epoch = max(1, round(sum(self._targets) / batch_targets))

    @property
    def targets_per_step(self) -> float:
        """Targets of a batch, on average: fewer than asked for where there are not as many."""
        return sum(self._targets) / self.per_epoch

    def batch(self, step: int) -> list[Row]:
        """The rows of one step."""
        epoch, place = divmod(step, self.per_epoch)
        if epoch not in self._epochs:
            self._epochs = {epoch: self._split(epoch)}
        return [self._rows[index] for index in self._epochs[epoch][place]]

    def _split(self, epoch: int) -> list[list[int]]:
        draw = torch.Generator().manual_seed(self._seed * 1_000_003 + epoch)
        order = torch.randperm(len(self._rows), generator=draw).tolist()
        batches: list[list[int]] = []
        for pool in self._parts(order, -(-self.per_epoch // POOL), share=POOL * self.targets_per_step):
            count = min(POOL, self.per_epoch - len(batches))
            near = sorted(pool, key=lambda index: self._rows[index].fed_tokens)
            cut = self._parts(near, count, share=self.targets_per_step)
            batches += [cut[place] for place in torch.randperm(count, generator=draw).tolist()]
        # A row with many targets can leave a batch empty; it then borrows from its neighbour.
        return [batch or batches[max(0, place - 1)] or order[:1] for place, batch in enumerate(batches)]

    def _parts(self, order: Sequence[int], count: int, *, share: float) -> list[list[int]]:
        """Rows in `count` runs of about `share` targets each."""
        parts: list[list[int]] = [[] for _ in range(count)]
        seen = 0
        for index in order:
            parts[min(count - 1, int(seen / share))].append(index)
            seen += self._targets[index]
        return parts


class Trainer:
    """Trains one set of parameters; knows how far it is and what was best."""

    def __init__(
        self,
        engine: Differentiable,
        objective: Objective,
        parameters: PrefixParameters,
        order: BatchOrder,
        schedule: Schedule,
        *,
        micro_tokens: int,
        clip: float = 1.0,
        workers: Workers = Workers(),  # noqa: B008 (frozen)
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._engine, self._objective, self._order = engine, objective, order
        self.parameters, self.schedule = parameters, schedule
        self._micro_tokens, self._clip, self._workers, self._clock = micro_tokens, clip, workers, clock
        self._trained = list(parameters.tensors().values())
        self.optimiser = torch.optim.AdamW(self._trained, lr=schedule.peak, betas=(0.9, 0.99), weight_decay=0.0, foreach=True)
        self.step = 0

    def run(self, until: int, *, after_step: Callable[[StepRecord], bool] | None = None) -> None:
        """Takes steps up to `until`, or until `after_step` answers False.

        Raises:
            NonFiniteLoss: the loss is NaN or infinite; the parameters are those of the last finite step.
        """
        while self.step < until:
            record = self._take_step()
            if after_step is not None and not after_step(record):
                return

    def _take_step(self) -> StepRecord:
        began = self._clock()
        rows = self._order.batch(self.step)
        rate = self.schedule.at(self.step)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.optimiser.zero_grad(set_to_none=True)
        tokens = sum(len(target) for row in rows for target in row.targets)
        # The gradient of each micro-batch with respect to keys and values is summed first, so that the
        # parameterisation's own backward runs once per step.
        key_LHND, value_LHND = self.parameters.keys_values()
        leaves = [tensor.detach().requires_grad_() for tensor in (key_LHND, value_LHND)]
        total = 0.0
        mine = self._workers.share(rows)
        for group in self._engine.batches(mine, most_tokens=self._micro_tokens) if mine else []:
            loss = self._objective.loss(self._engine, [mine[index] for index in group], leaves[0], leaves[1])
            (loss / tokens).backward()
            total += float(loss.detach())
        gradients = [_gradient(leaf) for leaf in leaves]
        self._workers.sum_(gradients)
        mean = self._workers.sum(total) / tokens
        torch.autograd.backward([key_LHND, value_LHND], gradients)
        norm = float(torch.nn.utils.clip_grad_norm_(self._trained, self._clip))
        if not (math.isfinite(mean) and math.isfinite(norm)):
            raise NonFiniteLoss(
                f"The loss became {mean} (gradient norm {norm}) at step {self.step + 1} with learning rate {rate:.3g}. "
                "Lower `--learning-rate`, or use `--dtype float32`."
            )
        self.optimiser.step()
        self.step += 1
        fed = sum(row.fed_tokens for row in rows)
        return StepRecord(
            step=self.step,
            loss=mean,
            learning_rate=rate,
            targets=sum(len(row.targets) for row in rows),
            target_tokens=tokens,
            fed_tokens=fed,
            gradient_norm=norm,
            seconds=self._clock() - began,
        )

    def state(self) -> dict[str, Tensor]:
        """Parameters and the optimiser's moments, by name; what `load_state` takes."""
        state = self.snapshot()
        for name, tensor in self.parameters.tensors().items():
            state |= {f"{name}.{moment}": value.clone() for moment, value in self.optimiser.state.get(tensor, {}).items()}
        return state

    def load_state(self, state: dict[str, Tensor], *, step: int) -> None:
        """Goes back to a state that was saved after `step` steps."""
        self.restore(state)
        self.step = step
        for name, tensor in self.parameters.tensors().items():
            moments = {key.rpartition(".")[2]: value for key, value in state.items() if key.startswith(f"{name}.")}
            if moments:
                # The optimiser wants its count of steps on the CPU and the rest beside the parameter.
                self.optimiser.state[tensor] = {key: value if key == "step" else value.to(tensor.device) for key, value in moments.items()}

    def snapshot(self) -> dict[str, Tensor]:
        """A copy of the parameters."""
        return {name: tensor.detach().clone() for name, tensor in self.parameters.tensors().items()}

    def restore(self, snapshot: dict[str, Tensor]) -> None:
        """Puts a snapshot back."""
        with torch.no_grad():
            for name, tensor in self.parameters.tensors().items():
                tensor.copy_(snapshot[name])


def _gradient(leaf: Tensor) -> Tensor:
    return leaf.grad if leaf.grad is not None else torch.zeros_like(leaf)
