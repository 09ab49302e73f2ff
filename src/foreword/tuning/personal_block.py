"""Trains the prefixes of a block of users together: one batch of all their rows, and everything else to each his own.

Gradient, clipping, optimiser, rate, order of rows and best checkpoint are a user's alone, so what a user gets does not depend on who else
is in the block, save for the order in which floating-point numbers are summed.

Axes: Q user's prefix, L layer, H KV head, N virtual position, D head dimension, T target token.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from foreword.engine import Differentiable, Row
from foreword.tuning.dev_loss import SCORING_TOKENS
from foreword.tuning.observer import Observer
from foreword.tuning.parameters import ScaledOffsets
from foreword.tuning.personal_settings import PersonalSettings
from foreword.tuning.personal_users import UserData
from foreword.tuning.run import GPU_MICRO_TOKENS, HOLD_SHARE, WARMUP_SHARE
from foreword.tuning.trainer import BatchOrder, Schedule

CLIP = 1.0
CPU_MICRO_TOKENS = 1024
PACE_STEPS = 2
"""Steps of the first block after which its pace is known well enough to plan by."""
COPIES = 8
"""How often training holds a user's numbers: offsets and their gradient, two moments, the best checkpoint, keys and values as tensors of
their own and stacked with the others', and their gradient."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """What all users have in common.

    Attributes:
        key_LHND, value_LHND: where every user's own positions start, in float32, keys turned to where they will stand.
        front: keys and values that stand frozen before them, in float32; None where the user's positions are the first.
    """

    key_LHND: Tensor
    value_LHND: Tensor
    front: tuple[Tensor, Tensor] | None = None

    @property
    def front_positions(self) -> int:
        """Positions before the user's own."""
        return 0 if self.front is None else self.front[0].shape[2]

    def before_rows(self, own_QLHND: Sequence[Tensor]) -> list[Tensor]:
        """The users' keys and values, the common front before each."""
        if self.front is None:
            return list(own_QLHND)
        return [torch.cat([front.expand(len(own), -1, -1, -1, -1), own], dim=3) for front, own in zip(self.front, own_QLHND, strict=True)]


@dataclass(frozen=True, slots=True, kw_only=True)
class UserPlan:
    """One user's rows as tokens, and how long to train on them.

    Attributes:
        steps: steps that the whole training takes where no budget cuts it.
    """

    data: UserData
    rows: tuple[Row, ...]
    dev_rows: tuple[Row, ...]
    steps: int
    targets_per_step: float


class UserRun:
    """One user's training: parameters, optimiser, and how far it is."""

    def __init__(self, plan: UserPlan, ground: Ground, settings: PersonalSettings, *, steps: int) -> None:
        self.plan = plan
        self.parameters = ScaledOffsets(ground.key_LHND, ground.value_LHND)
        self._order = BatchOrder(plan.rows, batch_targets=settings.batch_targets, seed=plan.data.seed)
        self._trained = list(self.parameters.tensors().values())
        self._optimiser = torch.optim.AdamW(self._trained, lr=settings.learning_rate, betas=(0.9, 0.99), weight_decay=0.0, foreach=True)
        self._peak, self._evaluations = settings.learning_rate, settings.evaluations
        self.step = self.targets_seen = 0
        self.dev_losses: list[tuple[int, float]] = []
        self.best: tuple[int, float, list[Tensor]] | None = None
        self.stopped: str | None = None
        self.train_to(steps)

    def train_to(self, steps: int) -> None:
        """Plans the training to end after `steps` steps in all."""
        self.total = steps
        self._interval = max(1, -(-steps // self._evaluations))
        # As in a run for one prefix: warm-up, a constant rate, then a cosine.
        self._schedule = Schedule(peak=self._peak, warmup=max(1, round(WARMUP_SHARE * steps)), hold=round(HOLD_SHARE * steps), total=steps)

    @property
    def active(self) -> bool:
        """Whether there are steps left to take."""
        return self.stopped is None and self.step < self.total

    @property
    def due(self) -> bool:
        """Whether the dev loss is to be measured at this step."""
        measured = bool(self.dev_losses) and self.dev_losses[-1][0] == self.step
        return self.stopped is None and not measured and (self.step >= self.total or self.step % self._interval == 0)

    def batch(self) -> list[Row]:
        """The rows of the next step."""
        return self._order.batch(self.step)

    def take(self, keys_values: Sequence[Tensor], gradients: Sequence[Tensor], loss: float) -> None:
        """Takes a step along the gradient of this user's mean loss; where that is no number, the user stops at the best checkpoint."""
        self._optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(list(keys_values), list(gradients))
        norm = float(torch.nn.utils.clip_grad_norm_(self._trained, CLIP))
        rate = self._schedule.at(self.step)
        if not (math.isfinite(loss) and math.isfinite(norm)):
            self.stopped = f"the loss became {loss} (gradient norm {norm}) at step {self.step + 1} with learning rate {rate:.3g}"
            return
        self._optimiser.param_groups[0]["lr"] = rate
        self._optimiser.step()
        self.step += 1

    def note_dev_loss(self, loss: float) -> None:
        """Keeps the parameters where they are the best so far."""
        self.dev_losses.append((self.step, loss))
        if not math.isfinite(loss):
            self.stopped = f"the dev loss became {loss} after step {self.step}"
        elif self.best is None or loss < self.best[1]:
            self.best = (self.step, loss, [tensor.detach().clone() for tensor in self._trained])

    def keys_values(self) -> tuple[Tensor, Tensor]:
        """Keys and values at the best checkpoint."""
        assert self.best is not None
        with torch.no_grad():
            for tensor, kept in zip(self._trained, self.best[2], strict=True):
                tensor.copy_(kept)
            return self.parameters.keys_values()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Group:
    """Rows of several users that are computed together.

    Attributes:
        members: the users they belong to.
        prefix_of_row: each row's place among `members`.
        user_of_token: for each target token, its user.
    """

    rows: list[Row]
    members: Tensor
    prefix_of_row: list[int]
    user_of_token: Tensor


class Block:
    """Users whose prefixes are trained together."""

    def __init__(
        self,
        engine: Differentiable,
        users: Sequence[UserRun],
        ground: Ground,
        settings: PersonalSettings,
        watcher: Observer,
        *,
        title: str,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._engine, self._ground, self._watcher, self._title, self._clock = engine, ground, watcher, title, clock
        self._device = engine.module.device
        self._micro_tokens = settings.micro_tokens or (GPU_MICRO_TOKENS if self._device.type == "cuda" else CPU_MICRO_TOKENS)
        self.users = users

    def train(self, replan: Callable[[Sequence[UserRun]], None], *, told: int) -> None:
        """Trains every user to the end of the plan, the best checkpoint kept.

        Args:
            replan: called when the pace is known better; may change the users' plans.
            told: targets seen before this block, for whoever watches.
        """
        steps = 0
        while True:
            if due := [user for user in self.users if user.due]:
                self._evaluate(due)
            if due or steps == PACE_STEPS:
                replan(self.users)
            if any(user.due for user in self.users):
                # A new plan may end here.
                continue
            active = [user for user in self.users if user.active]
            if not active:
                return
            self._step(active, told)
            steps += 1

    def _step(self, users: Sequence[UserRun], told: int) -> None:
        began = self._clock()
        batches = [user.batch() for user in users]
        tokens_Q = torch.tensor([sum(len(target) for row in batch for target in row.targets) for batch in batches], device=self._device)
        own = [user.parameters.keys_values() for user in users]
        stacked = [torch.stack([pair[which].detach() for pair in own]) for which in (0, 1)]
        gradients = [torch.zeros_like(tensor) for tensor in stacked]
        loss_Q = torch.zeros(len(users), device=self._device)
        for group in self._groups(batches, self._micro_tokens):
            leaves = [tensor[group.members].requires_grad_() for tensor in stacked]
            log_prob_T = self._log_probs(group, leaves)
            # Each user's mean over that user's own tokens, whoever else is in the batch.
            loss_T = -log_prob_T / tokens_Q[group.user_of_token]
            loss_Q.index_add_(0, group.user_of_token, loss_T.detach())
            for gradient, part in zip(gradients, torch.autograd.grad(loss_T.sum(), leaves), strict=True):
                gradient.index_add_(0, group.members, part)
        for place, (user, loss) in enumerate(zip(users, loss_Q.tolist(), strict=True)):
            user.take(own[place], [gradient[place] for gradient in gradients], loss)
            user.targets_seen += sum(len(row.targets) for row in batches[place])
        fed = sum(row.fed_tokens for batch in batches for row in batch)
        seen = told + sum(user.targets_seen for user in self.users)
        self._watcher.step(float(loss_Q.mean()), seen, fed / (self._clock() - began))

    def _evaluate(self, users: Sequence[UserRun]) -> None:
        """Each user's mean negative log-likelihood per target token of the dev rows, under the prefix as it will be served."""
        rows = [user.plan.dev_rows for user in users]
        tokens_Q = torch.tensor([sum(len(target) for row in some for target in row.targets) for some in rows], device=self._device)
        loss_Q = torch.zeros(len(users), device=self._device)
        with torch.inference_mode():
            own = [user.parameters.keys_values() for user in users]
            stacked = [torch.stack([pair[which].to(self._engine.module.dtype) for pair in own]) for which in (0, 1)]
            for group in self._groups(rows, SCORING_TOKENS):
                log_prob_T = self._log_probs(group, [tensor[group.members] for tensor in stacked])
                loss_Q.index_add_(0, group.user_of_token, -log_prob_T)
        losses = (loss_Q / tokens_Q).tolist()
        for user, loss in zip(users, losses, strict=True):
            user.note_dev_loss(loss)
        # Users with plans of different lengths are measured at different steps; a line for each would say little.
        if 2 * len(users) >= len(self.users):
            self._watcher.evaluated(self._title, sum(losses) / len(losses))

    def _log_probs(self, group: _Group, own_QLHND: Sequence[Tensor]) -> Tensor:
        key_QLHND, value_QLHND = self._ground.before_rows(own_QLHND)
        return self._engine.target_log_probs(group.rows, key_QLHND, value_QLHND, prefix_of_row=group.prefix_of_row)

    def _groups(self, batches: Sequence[Sequence[Row]], most_tokens: int) -> Iterator[_Group]:
        """All rows of all users, some at a time; only the prefixes that a group needs are laid out for it."""
        rows = [row for batch in batches for row in batch]
        owner = [user for user, batch in enumerate(batches) for _ in batch]
        for chosen in self._engine.batches(rows, most_tokens=most_tokens):
            members = list(dict.fromkeys(owner[index] for index in chosen))
            place = {user: number for number, user in enumerate(members)}
            owners = torch.tensor([owner[index] for index in chosen])
            lengths = torch.tensor([sum(map(len, rows[index].targets)) for index in chosen])
            yield _Group(
                rows=[rows[index] for index in chosen],
                members=torch.tensor(members, device=self._device),
                prefix_of_row=[place[owner[index]] for index in chosen],
                user_of_token=owners.repeat_interleave(lengths).to(self._device),
            )
