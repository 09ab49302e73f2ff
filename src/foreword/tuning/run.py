"""One tuning run in motion: candidates, their trainers, what was seen so far. Resumable at every evaluation.

Axes: L layer, H KV head, N virtual position, D head dimension.
"""

from __future__ import annotations

import heapq
import math
import time
from typing import Any

import torch
from torch import Tensor

from foreword.data.dataset import Dataset
from foreword.engine import Differentiable, Row
from foreword.errors import NonFiniteLoss, TuningError
from foreword.prefix.store import PrefixStore
from foreword.tuning import initialisation, objective, plan
from foreword.tuning.dev_loss import DevLoss
from foreword.tuning.initialisation import Start, StartContext
from foreword.tuning.observer import Observer
from foreword.tuning.parameters import PrefixParameters, Reparameterised, ScaledOffsets
from foreword.tuning.rows import encode_examples, too_long
from foreword.tuning.run_folder import RunFolder
from foreword.tuning.search import Candidate, SearchState, probe_steps
from foreword.tuning.settings import TuneSettings
from foreword.tuning.trainer import BatchOrder, Schedule, StepRecord, Trainer
from foreword.tuning.workers import Workers
from foreword.types import Example

DEV_LIMIT = 128
"""Dev examples that choose; more cost time and change little."""
WARMUP_SHARE = 0.05
HOLD_SHARE = 0.25
"""The rate stays at its peak through the probes, whatever a candidate's fate, and falls afterwards."""
MLP_HIDDEN = 512
CPU_MICRO_TOKENS, GPU_MICRO_TOKENS = 512, 16384
PACE_STEPS = 2
BUDGET_SHARE = 0.97
"""Share of the budget that is planned; the rest is for a pace that turns out slower than measured."""


class Run:
    """Everything between the data and the best prefix."""

    def __init__(
        self,
        engine: Differentiable,
        train: Dataset,
        dev: Dataset,
        settings: TuneSettings,
        folder: RunFolder,
        watcher: Observer,
        workers: Workers,
        *,
        kept: tuple[dict[str, Tensor], dict[str, Any]] | None,
        store: PrefixStore | None = None,
    ) -> None:
        self._engine, self._train, self._dev, self._settings = engine, train, dev, settings
        self._folder, self._watcher, self._workers, self._store = folder, watcher, workers, store
        self._batch = plan.batch_targets(settings, train)
        self._kept_tensors, about = kept if kept is not None else ({}, {})
        self._now = time.perf_counter if settings.budget_clock == "wall" else time.process_time
        self._earlier_seconds, self._started = float(about.get("seconds", 0.0)), self._now()
        self.history: list[dict[str, Any]] = list(about.get("history", []))
        self._targets_seen = sum(record["targets"] for record in self.history)
        self._evaluation_seconds = 0.0
        self.stopped: str | None = about.get("stopped")
        self._room = self._room_for_prefix()
        self._starts: dict[int, Start] = {}
        self._rows: dict[int, tuple[Row, ...]] = {}
        self._best: dict[int, dict[str, Tensor]] = {}
        self._dev_losses: dict[str, DevLoss] = {}
        self._trainers: dict[int, Trainer] = {}
        self.candidates: tuple[Candidate, ...] = tuple(Candidate.model_validate(fields) for fields in about.get("candidates", []))
        self.search = SearchState.model_validate(about["search"]) if about else self._begin()
        if self._kept_tensors:
            # At once, not when their turn comes: the next state that is saved must hold all of them again.
            for number in self.search.alive():
                self._trainer(number)
        self._announce()

    # --- the run -----------------------------------------------------------------------------------------------

    def to_the_end(self) -> None:
        """Takes every segment that is left."""
        while (segment := self.search.next_segment()) is not None and self.stopped is None:
            number, until = segment
            self._watcher.stage(f"{'training' if self.search.final else 'probing'} {self.candidates[number]}")
            trainer = self._trainer(number)
            failure: NonFiniteLoss | None = None
            try:
                trainer.run(until, after_step=lambda record, number=number: self._note_step(number, record))
                dev_loss = self._evaluate(number, trainer)
            except NonFiniteLoss as error:
                self._watcher.note(f"{self.candidates[number]}: {error}")
                failure, dev_loss = error, math.inf
            self.search.record(number, until, dev_loss)
            if failure is not None:
                self._stop_if_nothing_is_left(failure)
            going_on = self.stopped is None and self.search.next_segment() is not None
            if going_on and self.search.final and self._settings.budget_seconds is not None:
                self._fit_into_budget()
            for loser in [other for other in self._trainers if not self.search.progress[other].alive]:
                del self._trainers[loser]
            if self.stopped is None and self.search.next_segment() is not None and self.search.stalled(self._settings.patience):
                self.stopped = f"no improvement in {self._settings.patience} evaluations"
            self._save()

    def best(self) -> tuple[Tensor, Tensor, int, float]:
        """Keys, values, step and dev loss of the winner's best checkpoint."""
        number = self.search.winner()
        step, loss = self.search.progress[number].best
        if number not in self._best:
            raise TuningError("No checkpoint was worth keeping: the loss was never finite. Lower `--learning-rate`.")
        trainer = self._trainer(number)
        trainer.restore(self._best[number])
        with torch.no_grad():
            key_LHND, value_LHND = trainer.parameters.keys_values()
        return key_LHND, value_LHND, step, loss

    @property
    def seconds(self) -> float:
        """Time so far on the budget's clock, that of interrupted parts included."""
        return self._earlier_seconds + self._now() - self._started

    @property
    def targets_seen(self) -> int:
        """Training targets seen, probes included."""
        return self._targets_seen

    def curves(self) -> dict[str, Any]:
        """Loss curves by candidate, to draw."""
        curves = {
            str(candidate): {
                "train": [(record["step"], record["loss"]) for record in self.history if record["candidate"] == number],
                "dev": [(step, loss) for step, loss in self.search.progress[number].dev if math.isfinite(loss)],
            }
            for number, candidate in enumerate(self.candidates)
        }
        return {"name": self._settings.name, "candidates": curves}

    # --- beginning ---------------------------------------------------------------------------------------------

    def _begin(self) -> SearchState:
        self.candidates = plan.candidates_for(self._settings, self._train, targets=0)
        targets = sum(len(row.targets) for row in self._rows_of(0))
        total = max(1, round(plan.targets_to_see(self._settings, self._train, targets) / self._batch))
        pace = None
        if self._settings.budget_seconds is not None:
            self._watcher.stage("measuring the pace")
            pace = self._pace()
            within = plan.steps_within(self._left(), pace, candidates=1, settings=self._settings)
            within = self._workers.agree(within)
            total = within if self._settings.examples_seen is None else min(total, within)
        self.candidates = plan.candidates_for(self._settings, self._train, targets=total * self._batch)
        if pace is not None and len(self.candidates) > 1:
            within = plan.steps_within(self._left(), pace, candidates=len(self.candidates), settings=self._settings)
            total = min(total, self._workers.agree(within))
        return plan.begin(total, candidates=len(self.candidates), settings=self._settings)

    def _announce(self) -> None:
        steps = plan.steps_in_all(len(self.candidates), rung=self.search.rung, total=self.search.total)
        order = BatchOrder(self._rows_of(0), batch_targets=self._batch, seed=self._settings.seed)
        self._watcher.planned(round(steps * order.targets_per_step))

    def _pace(self) -> plan.Pace:
        """Times a few steps of a throw-away trainer; the first one, which warms caches up, does not count."""
        trainer = self._new_trainer(0, Schedule(peak=1e-9, warmup=1, hold=1, total=1))
        trainer.run(1)
        fed: list[int] = []
        began = self._now()
        trainer.run(1 + PACE_STEPS, after_step=lambda record: not fed.append(record.fed_tokens))
        # Batches hold rows of like length, so a few of them say how fast tokens go, and not how long a batch is.
        rows = self._rows_of(0)
        order = BatchOrder(rows, batch_targets=self._batch, seed=self._settings.seed)
        step_seconds = (self._now() - began) / sum(fed) * sum(row.fed_tokens for row in rows) / order.per_epoch
        began = self._now()
        self._dev_loss(0)(*self._keys_values(trainer))
        return plan.Pace(step_seconds=step_seconds, evaluation_seconds=self._now() - began)

    def _left(self) -> float:
        """Seconds of the budget that may still be planned."""
        return BUDGET_SHARE * (self._settings.budget_seconds or 0.0) - self.seconds

    def _fit_into_budget(self) -> None:
        """Plans the rest of the winner's steps into what is left of the budget, at the pace of the last segment."""
        number = self.search.winner()
        progress = self.search.progress[number]
        since = progress.dev[-2][0] if len(progress.dev) > 1 else 0
        steps = [record["seconds"] for record in self.history if record["candidate"] == number and record["step"] > since]
        evaluations = max(1, -(-(self.search.total - progress.step) // self.search.interval))
        left = self._left() - evaluations * self._evaluation_seconds
        more = self._workers.agree(max(0, int(left * len(steps) / sum(steps))))
        if self._settings.examples_seen is not None:
            more = min(more, self.search.total - progress.step)
        self.search.total = self.search.target = progress.step + more
        if len(self.candidates) > 1:
            self.search.interval = max(1, -(-more // evaluations))
        self._trainer(number).schedule = self._schedule(number)
        self._announce()

    # --- candidates --------------------------------------------------------------------------------------------

    def start_of(self, number: int) -> Start:
        """Where a candidate starts; computed again, not stored, since it follows from data and seed."""
        if number not in self._starts:
            candidate = self.candidates[number]
            name, _, argument = candidate.initialisation.partition(":")
            context = StartContext(
                engine=self._engine,
                train=self._train,
                instruction=self._settings.instruction,
                positions=candidate.positions,
                argument=argument or None,
                seed=self._settings.seed + 7919 * candidate.draw,
                room=self._room,
                store=self._store,
            )
            self._starts[number] = initialisation.get(name).start(context)
        return self._starts[number]

    def _rows_of(self, number: int) -> tuple[Row, ...]:
        """Training rows for a candidate: those that do not already stand in its start, where enough others are left."""
        if number not in self._rows:
            start = self.start_of(number)
            others = [example for index, example in enumerate(self._train.examples) if index not in start.used]
            examples = others if len(others) >= 4 * len(start.used) else self._train.examples
            encoded = encode_examples(
                self._engine,
                examples,
                prompt_format=start.prompt_format,
                room=self._engine.window - start.positions,
                on_long=self._settings.on_long,
            )
            if not encoded.rows:
                raise TuningError(f"No example of {self._train.path} fits into the window beside {start.positions} prefix positions.")
            if encoded.long_lines:
                self._watcher.note(
                    f"{len(encoded.long_lines)} examples were too long (lines {', '.join(map(str, encoded.long_lines[:10]))})."
                )
            self._rows[number] = encoded.rows
        return self._rows[number]

    def _room_for_prefix(self) -> int:
        """Positions that a start may take: half the window at most, and what the longest example leaves.

        Where long examples may be skipped or shortened, those do not press a start below a quarter of the window.

        Raises:
            WindowError: the longest example leaves no room and must not be skipped or shortened.
        """
        window = self._engine.window
        takes = {
            index: len(self._engine.render(example.messages)) + max(len(self._engine.answer_ids(text)) for text in example.completions)
            for index, example in heapq.nlargest(3, enumerate(self._train.examples), key=lambda numbered: _characters(numbered[1]))
        }
        index, longest = max(takes.items(), key=lambda item: item[1])
        wanted = self._settings.positions or 1
        if self._settings.on_long != "fail":
            return max(min(window // 2, window - longest), window // 4)
        if longest + wanted > window:
            raise too_long(self._train.examples[index], longest, window - wanted)
        return min(window // 2, window - longest)

    def _trainer(self, number: int) -> Trainer:
        if number not in self._trainers:
            trainer = self._new_trainer(number, self._schedule(number))
            mine = {key.partition(".")[2]: value for key, value in self._kept_tensors.items() if key.startswith(f"{number}.")}
            if mine:
                trainer.load_state(
                    {key: value for key, value in mine.items() if not key.startswith("best.")}, step=self.search.progress[number].step
                )
                if best := {key.removeprefix("best."): value for key, value in mine.items() if key.startswith("best.")}:
                    self._best[number] = best
            self._trainers[number] = trainer
        return self._trainers[number]

    def _new_trainer(self, number: int, schedule: Schedule) -> Trainer:
        return Trainer(
            self._engine,
            objective.get(self._settings.objective),
            self._parameters(number),
            BatchOrder(self._rows_of(number), batch_targets=self._batch, seed=self._settings.seed),
            schedule,
            micro_tokens=self._settings.micro_tokens
            or (GPU_MICRO_TOKENS if self._engine.module.device.type == "cuda" else CPU_MICRO_TOKENS),
            workers=self._workers,
            clock=self._now,
        )

    def _parameters(self, number: int) -> PrefixParameters:
        start = self.start_of(number)
        if self._settings.parameterisation == "mlp":
            return Reparameterised(start.key_LHND, start.value_LHND, hidden=MLP_HIDDEN, seed=self._settings.seed)
        return ScaledOffsets(start.key_LHND, start.value_LHND)

    def _schedule(self, number: int) -> Schedule:
        total = self.search.total
        return Schedule(
            peak=self.candidates[number].learning_rate,
            warmup=max(1, round(WARMUP_SHARE * self.search.rung / plan.PROBE_SHARE)),
            hold=max(round(HOLD_SHARE * total), probe_steps(len(self.candidates), rung=self.search.rung)),
            total=total,
        )

    # --- noting ------------------------------------------------------------------------------------------------

    def _note_step(self, number: int, record: StepRecord) -> bool:
        self.history.append(
            {
                "candidate": number,
                "step": record.step,
                "loss": record.loss,
                "learning_rate": record.learning_rate,
                "targets": record.targets,
                "tokens": record.fed_tokens,
                "gradient_norm": record.gradient_norm,
                "seconds": record.seconds,
            }
        )
        self._targets_seen += record.targets
        self._watcher.step(record.loss, self._targets_seen, record.fed_tokens / record.seconds)
        return True

    def _dev_loss(self, number: int) -> DevLoss:
        start = self.start_of(number)
        if start.prompt_format not in self._dev_losses:
            # The room beside the longest start allowed, so that candidates of any length are judged on the same examples.
            made = DevLoss(
                self._engine,
                self._dev,
                prompt_format=start.prompt_format,
                room=self._engine.window - max(self._room, start.positions),
                limit=DEV_LIMIT,
                seed=self._settings.seed,
            )
            if made.left_out:
                self._watcher.note(f"{made.left_out} dev examples are too long and are left out.")
            self._dev_losses[start.prompt_format] = made
        return self._dev_losses[start.prompt_format]

    def _keys_values(self, trainer: Trainer) -> tuple[Tensor, Tensor]:
        """Keys and values as they will be served, in the model's dtype."""
        with torch.no_grad():
            key_LHND, value_LHND = trainer.parameters.keys_values()
        return key_LHND.to(self._engine.module.dtype), value_LHND.to(self._engine.module.dtype)

    def _evaluate(self, number: int, trainer: Trainer) -> float:
        began = self._now()
        loss = self._dev_loss(number)(*self._keys_values(trainer))
        self._evaluation_seconds = self._now() - began
        if not math.isfinite(loss):
            raise NonFiniteLoss(f"The dev loss became {loss} after step {trainer.step}. Lower `--learning-rate`, or use `--dtype float32`.")
        self._watcher.evaluated(str(self.candidates[number]), loss)
        earlier = [value for _, value in self.search.progress[number].dev]
        if loss < min(earlier, default=float("inf")):
            self._best[number] = trainer.snapshot()
        return loss

    def _stop_if_nothing_is_left(self, error: NonFiniteLoss) -> None:
        """A candidate whose loss is not finite has lost its probe; a winner, or the last of them, stops at its best checkpoint."""
        number = self.search.winner()
        if not self.search.final or math.isfinite(self.search.progress[number].latest):
            return
        if number not in self._best:
            raise NonFiniteLoss(f"{error} No checkpoint was worth keeping yet.") from error
        self.stopped = f"{error} The best prefix so far, of step {self.search.progress[number].best[0]}, is kept."

    def _save(self) -> None:
        if self._folder.path is None:
            return
        tensors = {f"{number}.{name}": tensor for number, trainer in self._trainers.items() for name, tensor in trainer.state().items()}
        tensors |= {
            f"{number}.best.{name}": tensor
            for number, snapshot in self._best.items()
            if self.search.progress[number].alive
            for name, tensor in snapshot.items()
        }
        about = {
            "candidates": [candidate.model_dump(mode="json") for candidate in self.candidates],
            "search": self.search.model_dump(mode="json"),
            "seconds": self.seconds,
            "history": self.history,
            "stopped": self.stopped,
        }
        self._folder.save_state(tensors, about)
        self._folder.log(self.history)


def _characters(example: Example) -> int:
    """A guess of how many tokens an example takes that costs no tokenising."""
    return sum(len(message.content) for message in example.messages) + max(len(text) for text in example.completions)
