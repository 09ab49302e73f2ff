"""Tunes a prefix: starts, probes, training, the best checkpoint. The order of the work is the order of `tune`.

Axes: L layer, H KV head, N virtual position, D head dimension.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from foreword.data.dataset import Dataset
from foreword.data.fixing import split
from foreword.engine import Differentiable
from foreword.errors import DataError, TuningError
from foreword.prefix.artifact import Prefix
from foreword.prefix.store import PrefixStore
from foreword.tuning.instruction import instruction_for
from foreword.tuning.memory import memory_advice
from foreword.tuning.observer import Observer, Silent
from foreword.tuning.run import Run
from foreword.tuning.run_folder import RunFolder
from foreword.tuning.settings import TuneSettings
from foreword.tuning.workers import Workers

logger = logging.getLogger(__name__)

DEV_SHARE = 0.1
LEAST_EXAMPLES = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class TuneResult:
    """What a run gave.

    Attributes:
        seconds: time of the whole run on the budget's clock, interrupted parts included.
        history: one record per step: candidate, step, loss, learning rate, tokens, gradient norm.
        stopped: why the run ended before its plan, or None.
    """

    prefix: Prefix
    seconds: float
    history: tuple[dict[str, Any], ...]
    stopped: str | None


def tune(
    engine: Differentiable,
    train: Dataset,
    dev: Dataset | None,
    settings: TuneSettings,
    *,
    run_folder: Path | None = None,
    observer: Observer | None = None,
    store: PrefixStore | None = None,
) -> TuneResult:
    """Learns a prefix (Li & Liang 2021), the weights frozen.

    A run folder that holds the same run unfinished is continued, and gives what the uninterrupted run would have.

    Args:
        store: where a start's prefix is looked up by its name; the default one where it is missing.

    Raises:
        TuningError: the data are too few, or the folder holds another run.
        DataError: the dev data have labels that the training data lack.
        NonFiniteLoss: the loss became NaN or infinite before any checkpoint was worth keeping.
        OutOfMemory: says what to lower.
        WindowError: an example does not fit and `settings.on_long` is `fail`.
    """
    watcher = observer or Silent()
    if len(train.examples) < LEAST_EXAMPLES:
        raise TuningError(
            f"{train.path} has {len(train.examples)} usable example; at least {LEAST_EXAMPLES} are needed, 50 are worth while."
        )
    workers = Workers.from_environment()
    train, dev = _with_dev(train, dev, settings, watcher)
    folder = RunFolder(run_folder if workers.leads else None)
    folder.begin(_config(engine, train, dev, settings))
    # Every worker reads the state, only the first one writes it.
    kept = RunFolder(run_folder).load_state()
    with memory_advice(), _engine_mode(engine, settings):
        run = Run(engine, train, dev, settings, folder, watcher, workers, kept=kept, store=store)
        run.to_the_end()
    return _result(engine, train, settings, run, folder)


def _with_dev(train: Dataset, dev: Dataset | None, settings: TuneSettings, watcher: Observer) -> tuple[Dataset, Dataset]:
    if dev is not None and dev.examples:
        return train, _with_labels_of(train, dev)
    if len(train.examples) < 20:
        watcher.note(f"No dev data, and only {len(train.examples)} examples: checkpoints are chosen on the training data themselves.")
        return train, train
    parts = split(train, DEV_SHARE, seed=settings.seed)
    watcher.note(f"No dev data: {len(parts.dev.examples)} of {len(train.examples)} examples were set aside to choose on.")
    return parts.train, parts.dev


def _with_labels_of(train: Dataset, dev: Dataset) -> Dataset:
    """Dev data judged between all labels of the training data, whichever of them it has examples of."""
    if not train.labels or not dev.labels:
        return dev
    if unknown := sorted(set(dev.labels) - set(train.labels)):
        raise DataError(f"{dev.path} has labels that {train.path} lacks: {', '.join(unknown)}. Mend them, or add examples of them.")
    return replace(dev, labels=train.labels)


def _config(engine: Differentiable, train: Dataset, dev: Dataset, settings: TuneSettings) -> dict[str, Any]:
    return {
        "settings": settings.model_dump(mode="json"),
        "model": engine.fingerprint.model_dump(mode="json"),
        "dtype": str(engine.module.dtype),
        "train": train.sha256,
        "dev": dev.sha256,
    }


@contextlib.contextmanager
def _engine_mode(engine: Any, settings: TuneSettings) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        if settings.checkpointing:
            stack.enter_context(engine.recomputing())
        if settings.compile_layers:
            stack.enter_context(engine.compiled())
        yield


def _result(engine: Differentiable, train: Dataset, settings: TuneSettings, run: Run, folder: RunFolder) -> TuneResult:
    candidate = run.candidates[run.search.winner()]
    key_LHND, value_LHND, step, dev_loss = run.best()
    start = run.start_of(run.search.winner())
    prefix = Prefix.make(
        name=settings.name,
        kind="learned",
        key_LHND=key_LHND.to(engine.module.dtype),
        value_LHND=value_LHND.to(engine.module.dtype),
        fingerprint=engine.fingerprint,
        geometry=engine.geometry,
        prompt_format=start.prompt_format,
        parents=start.parents,
        training_data=train.sha256,
        recipe={
            "settings": settings.model_dump(mode="json"),
            "candidate": candidate.model_dump(mode="json"),
            "best_step": step,
            "steps": run.search.total,
            "targets_seen": run.targets_seen,
            "seconds": round(run.seconds, 1),
            "stopped": run.stopped,
        },
        seed=settings.seed,
        quality={"dev_loss": dev_loss},
        licence=settings.licence,
        instruction=instruction_for(train, settings.instruction),
    )
    folder.finish({**prefix.header.recipe, "quality": dict(prefix.header.quality), "positions": prefix.positions}, run.curves())
    return TuneResult(prefix=prefix, seconds=run.seconds, history=tuple(run.history), stopped=run.stopped)
