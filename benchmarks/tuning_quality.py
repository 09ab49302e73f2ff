"""The parts of the tuning benchmark that train and judge. Each is one process with one thread, so that two fit on two cores.

Budgets are processor seconds: a two-core minute is 120 of them. Processor time does not count what other programs take.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import shared_tasks
from foreword.api import load, tune
from foreword.evaluate import measuring, scorer
from foreword.evaluate.comparison import Comparison, compare
from foreword.evaluate.measuring import Finding, Job
from foreword.evaluate.statistics import bootstrap_interval
from foreword.evaluate.task import Task
from foreword.prefix.store import PrefixStore
from foreword.tuning.settings import TuneSettings

TWO_MINUTES, TEN_MINUTES = 240.0, 1200.0
TABLE = ("zero-shot", "few-shot:8", "prefix", "lora", "finetune", "peft-prefix", "peft-cartridge")
SEEDS = 10
LOW_DATA_SEEDS = 5
LOW_DATA_BUDGETS = {50: 40.0, 100: 50.0, 200: 70.0, 500: 100.0}
"""Processor seconds for each number of training rows, for each contender: full fine-tuning takes a quarter of a second per row."""
LOW_DATA_DEV = 150

Part = Callable[[Path], Any]


def parts() -> dict[str, Part]:
    """Every part by name, the most wanted first."""
    made: dict[str, Part] = {"e2e-table": e2e_table, "hate-table": hate_table}
    for seed in range(SEEDS):
        made[f"hate-seed-{seed}"] = _hate_seed(seed)
    made["e2e-32-positions"] = e2e_32_positions
    made["webnlg-prefix"] = _webnlg("prefix")
    made["webnlg-finetune"] = _webnlg("finetune")
    for seed in range(LOW_DATA_SEEDS):
        for rows in LOW_DATA_BUDGETS:
            made[f"low-data-{rows}-{seed}"] = _low_data(rows, seed)
    made["e2e-ten-minutes"] = e2e_ten_minutes
    return made


def e2e_table(data: Path) -> Any:
    """All contenders on E2E with 800 training pairs, two two-core minutes each."""
    return _plain(compare(shared_tasks.e2e(data, pairs=800, seed=0), TABLE, budget_seconds=TWO_MINUTES, clock="cpu"))


def hate_table(data: Path) -> Any:
    """All contenders on hate speech, two two-core minutes each."""
    return _plain(compare(shared_tasks.hate_speech(data, rows=None, seed=0), TABLE, budget_seconds=TWO_MINUTES, clock="cpu"))


def e2e_ten_minutes(data: Path) -> Any:
    """Prefix against LoRA with five times the time."""
    return _plain(compare(shared_tasks.e2e(data, pairs=800, seed=0), ("prefix", "lora"), budget_seconds=TEN_MINUTES, clock="cpu"))


def e2e_32_positions(data: Path) -> Any:
    """A prefix of 32 positions on E2E, tuned beforehand in two two-core minutes and taken from a store."""
    task = shared_tasks.e2e(data, pairs=800, seed=0)
    with tempfile.TemporaryDirectory() as folder:
        store = PrefixStore(Path(folder))
        settings = TuneSettings(name="e2e", positions=32, instruction=task.instruction, budget_seconds=TWO_MINUTES, budget_clock="cpu")
        # Checkpoints are chosen on some of the training rows: the dev rows judge.
        store.publish(tune(load("smollm2"), task.train, settings=settings))
        return _plain(compare(task, ("prefix:e2e",), store_root=store.root))


def _hate_seed(seed: int) -> Part:
    def run(data: Path) -> Any:
        task = shared_tasks.hate_speech(data, rows=None, seed=seed)
        return _plain(compare(task, ("prefix",), budget_seconds=TWO_MINUTES, clock="cpu", seed=seed))

    return run


def _low_data(rows: int, seed: int) -> Part:
    def run(data: Path) -> Any:
        task = shared_tasks.hate_speech(data, rows=rows, seed=seed)
        budget = LOW_DATA_BUDGETS[rows]
        return _plain(compare(task, ("prefix", "finetune"), budget_seconds=budget, clock="cpu", seed=seed, dev_limit=LOW_DATA_DEV))

    return run


def _webnlg(contender: str) -> Part:
    def run(data: Path) -> Any:
        task, seen = shared_tasks.webnlg(data, pairs=2000, dev_rows=100, seed=0)
        with tempfile.TemporaryDirectory() as folder:
            job = Job(
                spec=contender,
                model="smollm2",
                dtype="auto",
                device="auto",
                task=task,
                budget_seconds=TWO_MINUTES,
                seed=0,
                clock="cpu",
                store_root=None,
            )
            finding = measuring.run(job, scratch=Path(folder), progress=lambda *_: None)
        return {"seen": _bleu(task, finding, 0, seen), "unseen": _bleu(task, finding, seen, len(task.dev)), "notes": finding.notes}

    return run


def _bleu(task: Task, finding: Finding, first: int, end: int) -> dict[str, float]:
    import numpy as np

    statistic = scorer.get("bleu").score(finding.outcome(task)).statistic
    rows = np.arange(first, end)
    interval = bootstrap_interval(lambda chosen: statistic(rows[chosen]), len(rows), seed=0)
    return {"bleu": statistic(rows), "low": interval.low, "high": interval.high, "rows": len(rows)}


def _plain(comparison: Comparison) -> Any:
    failed = [f"{row.contender}: {row.failed}" for row in comparison.rows if row.failed]
    if failed:
        raise RuntimeError("; ".join(failed))
    return comparison.model_dump(mode="json")
