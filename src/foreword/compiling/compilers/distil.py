"""`distil`: compacted keys and values, trained until the model says behind them what it says behind the text.

After Cartridges (Eyuboglu et al. 2025). Starting from what `compact` makes rather than from the text's first tokens, a few dozen
steps are enough where self-study from scratch takes thousands of prefills. The result is a plain prefix; no weight changes.

Axes: L layer, H KV head, N virtual position, D head dimension.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from foreword.compiling import assembly, compaction, study, tail, training
from foreword.compiling.divergence import Divergence, Taught
from foreword.compiling.observer import Observer, Silent
from foreword.compiling.settings import CompileSettings
from foreword.engine import Row
from foreword.errors import ConfigError
from foreword.tuning.parameters import ScaledOffsets
from foreword.tuning.run_folder import RunFolder
from foreword.tuning.trainer import BatchOrder, Schedule, Trainer

if TYPE_CHECKING:
    from foreword.compiling.compiler import CompilingEngine
    from foreword.prefix.artifact import Prefix

HONOURS = frozenset({"chat", "positions", "ratio", "select", "questions", "tail", "steps", "seed"})
BATCH = 4
"""Rows a step."""
LEARNING_RATE = 0.01
WARMUP_STEPS, HOLD_SHARE = 3, 0.5
MICRO_TOKENS = 1024


def compile_source(
    engine: CompilingEngine,
    text: str,
    *,
    name: str,
    settings: CompileSettings = CompileSettings(),  # noqa: B008 (frozen)
    observer: Observer = Silent(),  # noqa: B008 (stateless)
    folder: Path | None = None,
) -> Prefix:
    """`text` in as many positions as the settings say, a tenth by default; see `compiler.Compiler` for errors."""
    if not settings.questions:
        raise ConfigError("`distil` trains on the model's own questions about the text; ask for at least one (`--questions 16`).")
    plan = assembly.plan(engine, text, name=name, compiler="distil", kind="distilled", settings=settings, observer=observer)
    run = RunFolder(folder)
    run.begin({"recipe": plan.recipe, "seed": plan.seed, "dtype": str(engine.module.dtype), "model": engine.fingerprint.model_dump()})
    work = _Work(engine, settings, observer, run)
    prefix = plan.joined(engine, [work.part(number, part, name) for number, part in enumerate(plan.parts)], work.tails)
    run.drop_state()
    return prefix


class _Work:
    """What there is to do for each part, and what of it an interrupted run has done."""

    def __init__(self, engine: CompilingEngine, settings: CompileSettings, observer: Observer, run: RunFolder) -> None:
        self._engine, self._settings, self._observer, self._run = engine, settings, observer, run
        self._tensors: dict[str, Tensor] = {}
        self._about: dict[str, Any] = {"part": 0, "tails": []}
        if (kept := run.load_state()) is not None:
            self._tensors, self._about = kept
            observer.note(f"Going on after an interruption: part {self._about['part'] + 1}, step {self._about.get('step', 0)}.")

    @property
    def tails(self) -> list[str]:
        """The text tail of every part that is done; empty where it has none."""
        return self._about["tails"]

    def part(self, number: int, part: compaction.Part, name: str) -> tuple[Tensor, Tensor]:
        """Keys and values of one part, L H N D each."""
        if number < self._about["part"]:
            return self._tensors[f"done.{number}.key"], self._tensors[f"done.{number}.value"]
        if "rows" in self._about:
            key_LHND, value_LHND = self._engine.read(part.token_ids)
            start = (self._tensors["start.key"], self._tensors["start.value"])
            rows = tuple(
                tuple(Row(prompt=tuple(prompt), targets=(tuple(target),)) for prompt, target in kind) for kind in self._about["rows"]
            )
        else:
            reading = compaction.Reading(self._engine, part.token_ids, name=name, observer=self._observer)
            small = reading.compact(part.positions - part.tail, self._settings)
            key_LHND, value_LHND = reading.whole.key_LHND, reading.whole.value_LHND
            start = (small.key_LHND, small.value_LHND)
            if reading.heard is None and small.positions < reading.whole.positions:
                reading.listen(small.positions, self._settings)
            # A part that keeps all its positions is the text itself: there is nothing to learn.
            rows = ((), ()) if reading.heard is None else (reading.heard.reading_rows, reading.heard.asking_rows)
            self._tensors |= {"start.key": start[0], "start.value": start[1]}
            self._about |= {"rows": [[(row.prompt, row.targets[0]) for row in kind] for kind in rows], "step": 0}
            self._run.save_state(self._tensors, self._about)
        made = self._trained(start, study.taught_rows(self._engine, key_LHND, value_LHND, *rows)) if any(rows) else start
        made, said = tail.append(self._engine, part.token_ids, (key_LHND, value_LHND), made, room=part.tail)
        finished = {name: tensor for name, tensor in self._tensors.items() if name.startswith("done.")}
        self._tensors = finished | {f"done.{number}.key": made[0], f"done.{number}.value": made[1]}
        self._about = {"part": number + 1, "tails": [*self.tails, said]}
        self._run.save_state(self._tensors, self._about)
        return made

    def _trained(self, start: tuple[Tensor, Tensor], taught: Taught) -> tuple[Tensor, Tensor]:
        steps = self._settings.steps
        order = BatchOrder(list(taught), batch_targets=BATCH, seed=self._settings.seed)
        schedule = Schedule(peak=LEARNING_RATE, warmup=WARMUP_STEPS, hold=int(HOLD_SHARE * steps), total=steps)
        trainer = Trainer(self._engine, Divergence(taught), ScaledOffsets(*start), order, schedule, micro_tokens=MICRO_TOKENS)
        training.go_on(trainer, self._tensors, step=self._about["step"])
        training.train(trainer, steps, self._observer, self._save)
        key_LHND, value_LHND = trainer.parameters.keys_values()
        return key_LHND.detach().to(start[0].dtype), value_LHND.detach().to(start[1].dtype)

    def _save(self, state: dict[str, Tensor], step: int) -> None:
        self._tensors |= state
        self._about["step"] = step
        self._run.save_state(self._tensors, self._about)
