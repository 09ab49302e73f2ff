"""One prefix per user: all of the same length and from the same start, many trained in one batch.

Users are taken in blocks, whose prefixes are published when the block ends. A run that was interrupted goes on at the block where it was:
a user whose prefix was made by the same recipe from the same rows is not trained again.

Axes: L layer, H KV head, N virtual position, D head dimension.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from foreword.data.dataset import Dataset
from foreword.engine import Differentiable, Row
from foreword.errors import PrefixFileError, TuningError
from foreword.prefix.artifact import Prefix
from foreword.prefix.header import PrefixHeader
from foreword.prefix.store import PrefixStore, Reference
from foreword.tuning.fitting import SINK
from foreword.tuning.memory import memory_advice
from foreword.tuning.observer import Observer, Silent
from foreword.tuning.personal_block import COPIES, Block, UserPlan, UserRun
from foreword.tuning.personal_settings import PersonalSettings
from foreword.tuning.personal_start import common_start
from foreword.tuning.personal_users import LEAST_ROWS, UserData, gather
from foreword.tuning.plan import EPOCHS
from foreword.tuning.rows import encode_examples
from foreword.tuning.run import BUDGET_SHARE
from foreword.tuning.trainer import BatchOrder

logger = logging.getLogger(__name__)

MOST_USERS_AT_ONCE = 64
STATE_BYTES = 2 << 30
"""What the users that are trained together may take, apart from the model and its activations."""
LEAST_TARGETS, MOST_TARGETS = 64, 400
"""Training targets that a user sees when nothing else is said: users have few rows, and start from what all of them have in common."""
IDENTITY = ("settings", "user", "data", "start")
"""Entries of a recipe by which a prefix is known to be the one that a run would make again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UserResult:
    """What became of one user.

    Attributes:
        rows: the user's rows in the data.
        outcome: `kept` stands for a prefix that an earlier run made by the same recipe from the same rows; `skipped` and `failed` have
            a `reason` and no prefix.
        loss_before, loss_after: mean negative log-likelihood per target token on the user's dev rows, at the start and under the prefix.
        steps: steps up to the checkpoint that was kept.
        prefix: the prefix, where no store took it.
        reference: the prefix in the store, where there is one.
    """

    user: str
    rows: int
    outcome: Literal["trained", "kept", "skipped", "failed"]
    reason: str | None = None
    name: str | None = None
    loss_before: float | None = None
    loss_after: float | None = None
    positions: int = 0
    steps: int = 0
    prefix: Prefix | None = None
    reference: Reference | None = None


def personalize(
    engine: Differentiable,
    dataset: Dataset,
    settings: PersonalSettings,
    *,
    store: PrefixStore | None = None,
    fresh: bool = False,
    observer: Observer | None = None,
) -> list[UserResult]:
    """Learns a prefix for each user, the weights frozen; one result per user, in the order of their first rows.

    Args:
        dataset: rows with a user; those without one are left out.
        store: takes the prefixes as they get ready, under `NAME-USER`; without one they are in the results.
        fresh: train users again whose prefix is in the store already.

    Raises:
        DataError: no row has a user, or ids cannot name prefixes.
        TuningError: no user has enough rows, or the start cannot be made.
        PrefixMismatch, StoreError: a prefix that is named as start or front does not fit the model, or is not there.
        WindowError: an example does not fit and `settings.on_long` is `fail`, or the front leaves no room.
        OutOfMemory: says what to lower.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise TuningError("Users' prefixes are trained in one process. Part the data by user and start one command for each part.")
    recomputing: Any = engine.recomputing() if settings.checkpointing else contextlib.nullcontext()  # type: ignore[attr-defined]
    with memory_advice(" or `--users-at-once`"), recomputing:
        return _Personalisation(engine, dataset, settings, store, observer or Silent()).results(fresh=fresh)


def users_at_once(settings: PersonalSettings, numbers: int) -> int:
    """Users in a block.

    Args:
        numbers: how many a prefix has, keys and values together.
    """
    return settings.users_at_once or max(1, min(MOST_USERS_AT_ONCE, STATE_BYTES // (COPIES * 4 * max(1, numbers))))


class _Personalisation:
    """One run."""

    def __init__(
        self, engine: Differentiable, dataset: Dataset, settings: PersonalSettings, store: PrefixStore | None, watcher: Observer
    ) -> None:
        self._engine, self._settings, self._store, self._watcher = engine, settings, store, watcher
        self._began = time.perf_counter()
        self._path = dataset.path
        self._order = list(dict.fromkeys(example.user for example in dataset.examples if example.user is not None))
        gathered = gather(dataset, name=settings.name, seed=settings.seed)
        self._users = gathered.users
        self._results = {
            user: UserResult(user=user, rows=rows, outcome="skipped", reason=f"has {_counted(rows)}; at least {LEAST_ROWS} are needed")
            for user, rows in gathered.too_few
        }
        self._tell_left_out(gathered.nobodys)
        if not self._users:
            raise TuningError(f"No user of {self._path} has {LEAST_ROWS} usable rows. Collect more.")
        learned_from = dataset.with_examples(example for data in self._users for example in data.train)
        watcher.stage("reading the start")
        self._common = common_start(engine, learned_from, settings, store)

    def results(self, *, fresh: bool) -> list[UserResult]:
        """Trains block after block."""
        users = self._users if fresh else self._not_kept()
        plans = sorted(self._plans(users), key=lambda plan: plan.steps)
        size = users_at_once(self._settings, 2 * self._common.ground.key_LHND.numel())
        self._pending, self._share = plans, 1.0
        self._told = 0
        self._watcher.planned(round(sum(plan.steps * plan.targets_per_step for plan in plans)))
        self._training_began = time.perf_counter()
        for first in range(0, len(plans), size):
            self._pending = plans[first + size :]
            last = min(first + size, len(plans))
            title = f"users {first + 1:,} to {last:,} of {len(plans):,}" if last > first + 1 else f"user {last:,} of {len(plans):,}"
            self._train_block(plans[first:last], title)
        return [self._results[user] for user in self._order]

    def _train_block(self, plans: Sequence[UserPlan], title: str) -> None:
        self._watcher.stage(f"training {title}")
        runs = [UserRun(plan, self._common.ground, self._settings, steps=max(1, int(plan.steps * min(1.0, self._share)))) for plan in plans]
        block = Block(self._engine, runs, self._common.ground, self._settings, self._watcher, title=title)
        block.train(self._fit_into_budget, told=self._told)
        self._told += sum(run.targets_seen for run in runs)
        for run in runs:
            self._results[run.plan.data.user] = self._finished(run)

    # --- data ----------------------------------------------------------------------------------------------------

    def _tell_left_out(self, nobodys: int) -> None:
        if nobodys:
            self._watcher.note(f"{self._path}: {_counted(nobodys)} without a user {'is' if nobodys == 1 else 'are'} left out.")
        if self._results:
            some = ", ".join(list(self._results)[:10]) + (", …" if len(self._results) > 10 else "")
            self._watcher.note(f"{len(self._results):,} users have fewer than {LEAST_ROWS} rows and get no prefix: {some}.")

    def _plans(self, users: Sequence[UserData]) -> list[UserPlan]:
        plans, long = [], []
        for data in users:
            rows, lines = self._encoded(data.train, one_reference=False)
            # What cannot be served is nothing to choose by.
            dev_rows, dev_lines = (rows, ()) if data.dev is data.train else self._encoded(data.dev, one_reference=True)
            long += [*lines, *dev_lines]
            if not rows:
                self._results[data.user] = _left(data, "skipped", "no row fits the window beside the prefix")
                self._watcher.note(f"User {data.user} gets no prefix: no row fits the window beside it.")
                continue
            targets = sum(len(row.targets) for row in rows)
            order = BatchOrder(rows, batch_targets=self._settings.batch_targets, seed=0)
            plans.append(
                UserPlan(
                    data=data,
                    rows=rows,
                    dev_rows=dev_rows or rows,
                    steps=max(1, round(self._targets_to_see(targets) / self._settings.batch_targets)),
                    targets_per_step=order.targets_per_step,
                )
            )
        if long:
            self._watcher.note(f"{len(long)} examples were too long (lines {', '.join(map(str, sorted(long)[:10]))}).")
        return plans

    def _encoded(self, dataset: Dataset, *, one_reference: bool) -> tuple[tuple[Row, ...], tuple[int, ...]]:
        examples = [replace(example, completions=example.completions[:1]) for example in dataset] if one_reference else dataset.examples
        ground = self._common.ground
        encoded = encode_examples(
            self._engine,
            examples,
            prompt_format=self._common.prompt_format,
            room=self._engine.window - ground.front_positions - ground.key_LHND.shape[2],
            on_long=self._settings.on_long,
        )
        return encoded.rows, encoded.long_lines

    def _targets_to_see(self, targets: int) -> int:
        return self._settings.examples_seen or max(LEAST_TARGETS, min(MOST_TARGETS, EPOCHS * targets))

    # --- time ----------------------------------------------------------------------------------------------------

    def _fit_into_budget(self, runs: Sequence[UserRun]) -> None:
        """Spreads what is left of the time over all steps that are left, those of later blocks included."""
        seen = self._told + sum(run.targets_seen for run in runs)
        if self._settings.budget_seconds is None or not seen:
            return
        now = time.perf_counter()
        seconds_per_target = (now - self._training_began) / seen
        left = BUDGET_SHARE * self._settings.budget_seconds - (now - self._began)
        of_block = sum((run.plan.steps - run.step) * run.plan.targets_per_step for run in runs if run.stopped is None)
        of_others = sum(plan.steps * plan.targets_per_step for plan in self._pending)
        needed = seconds_per_target * (of_block + of_others)
        self._share = max(0.0, min(1.0, left / needed)) if needed else 1.0
        for run in runs:
            if run.stopped is None:
                # Nobody's prefix is published untrained because the others took the time.
                run.train_to(max(1, run.step + int(self._share * (run.plan.steps - run.step))))
        self._watcher.planned(round(seen + self._share * (of_block + of_others)))

    # --- results -------------------------------------------------------------------------------------------------

    def _finished(self, run: UserRun) -> UserResult:
        data = run.plan.data
        if run.stopped is not None:
            self._watcher.note(f"User {data.user}: {run.stopped}. Lower `--learning-rate`, or use `--dtype float32`.")
        if run.best is None:
            return _left(data, "failed", run.stopped or "no checkpoint was worth keeping")
        prefix = self._prefix(run)
        reference = None if self._store is None else self._store.publish(prefix)
        return UserResult(
            user=data.user,
            rows=data.rows,
            outcome="trained",
            reason=run.stopped,
            name=data.name,
            loss_before=run.dev_losses[0][1],
            loss_after=run.best[1],
            positions=prefix.positions,
            steps=run.best[0],
            prefix=prefix if reference is None else None,
            reference=reference,
        )

    def _prefix(self, run: UserRun) -> Prefix:
        assert run.best is not None
        data, common = run.plan.data, self._common
        step, loss, _ = run.best
        key_LHND, value_LHND = run.keys_values()
        front = common.ground.front_positions
        return Prefix.make(
            name=data.name,
            kind="learned",
            key_LHND=key_LHND.to(self._engine.module.dtype),
            value_LHND=value_LHND.to(self._engine.module.dtype),
            fingerprint=self._engine.fingerprint,
            geometry=self._engine.geometry,
            prompt_format=common.prompt_format,
            # Behind another prefix there is a sink already, and composing must drop no position and turn no key.
            sink=0 if front else SINK,
            first_position=front,
            parents=common.parents,
            training_data=data.train.sha256,
            recipe={
                **self._identity(data),
                "best_step": step,
                "steps": run.step,
                "targets_seen": run.targets_seen,
                "stopped": run.stopped,
            },
            seed=self._settings.seed,
            quality={"dev_loss": loss, "dev_loss_at_start": run.dev_losses[0][1]},
            licence=self._settings.licence,
            instruction=common.instruction,
        )

    def _identity(self, data: UserData) -> dict[str, Any]:
        return {"settings": self._settings.of_the_result(), "user": data.user, "data": data.sha256, "start": self._common.about}

    def _not_kept(self) -> list[UserData]:
        """Users that the store has no such prefix of yet."""
        if self._store is None:
            return list(self._users)
        names = {listing.name for listing in self._store.list()}
        left = []
        for data in self._users:
            reference = self._store.resolve(data.name) if data.name in names else None
            header = None if reference is None else self._header(self._store, reference)
            if reference is None or header is None or not self._would_be_made_again(header, data):
                left.append(data)
                continue
            self._results[data.user] = UserResult(
                user=data.user,
                rows=data.rows,
                outcome="kept",
                name=data.name,
                loss_before=header.quality.get("dev_loss_at_start"),
                loss_after=header.quality.get("dev_loss"),
                positions=header.positions,
                steps=int(str(header.recipe.get("best_step", 0))),
                reference=reference,
            )
        if len(left) < len(self._users):
            self._watcher.note(f"{len(self._users) - len(left):,} of {len(self._users):,} users have this prefix already.")
        return left

    def _header(self, store: PrefixStore, reference: Reference) -> PrefixHeader | None:
        try:
            return store.header(reference)
        except PrefixFileError as error:
            self._watcher.note(f"{reference} is damaged and will be made again: {error}")
            return None

    def _would_be_made_again(self, header: PrefixHeader, data: UserData) -> bool:
        wanted = self._identity(data)
        same_model = header.fingerprint == self._engine.fingerprint and f"torch.{header.dtype}" == str(self._engine.module.dtype)
        return same_model and all(header.recipe.get(entry) == wanted[entry] for entry in IDENTITY)


def _left(data: UserData, outcome: Literal["skipped", "failed"], reason: str) -> UserResult:
    return UserResult(user=data.user, rows=data.rows, outcome=outcome, reason=reason)


def _counted(rows: int) -> str:
    return f"{rows:,} {'row' if rows == 1 else 'rows'}"
