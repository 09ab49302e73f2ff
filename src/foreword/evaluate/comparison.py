"""One table: each contender under the same budget on the same rows, with what it costs and how sure the difference is.

    comparison = compare(task, ["zero-shot", "few-shot:8", "prefix", "lora"], model="smollm2", budget_seconds=120)

Contenders run one after the other, each in a process of its own (`measuring.py`), so that none inherits another's memory,
weights or crash. One that fails is a row that says why.
"""

from __future__ import annotations

import math
import os
import platform
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from statistics import fmean, median

from pydantic import AwareDatetime

from foreword.cost.prices import Price, cost_per_request, cost_per_success, machine_cost, seconds_per_success
from foreword.errors import ConfigError, EvaluationError
from foreword.evaluate import scorer, statistics
from foreword.evaluate.contender import STRATEGY, ClockName, Entry, parse
from foreword.evaluate.measuring import Finding, Job
from foreword.evaluate.own_process import run_apart
from foreword.evaluate.row import Asking, ContenderRow, Difference, Estimate, Frozen, Measured, Sample
from foreword.evaluate.scorer import Outcome, Score
from foreword.evaluate.task import Task

DEFAULT_CONTENDERS = ("zero-shot", "few-shot:8", "prefix")
REFERENCE_KEY = "prefix"
SAMPLE_ROWS = 3
MOST_REASONS = 3
REASON_CHARACTERS = 200


class Comparison(Frozen):
    """A finished comparison.

    Attributes:
        reference: the contender that the others are tested against: the first prefix that ran, else the best.
        model: the frozen model; with several, all of them, separated by commas.
        rows: in the order asked for; `ranked` gives the table's order.
    """

    task: str
    kind: str
    primary: str
    higher_is_better: bool
    success_rule: str
    model: str
    device: str
    budget_seconds: float
    clock: ClockName
    seed: int
    train_rows: int
    dev_rows: int
    reference: str | None
    price: Price | None
    machine: str
    versions: dict[str, str]
    created: AwareDatetime
    samples: tuple[Sample, ...]
    rows: tuple[ContenderRow, ...]

    def ranked(self) -> tuple[ContenderRow, ...]:
        """Best quality first, and of equal ones what a success costs least; rows that failed come last."""
        sign = -1.0 if self.higher_is_better else 1.0

        def place(row: ContenderRow) -> tuple[float, float]:
            if row.measured is None:
                return math.inf, math.inf
            money, machine = row.measured.cost_per_success, row.measured.machine_seconds_per_success
            cost = machine if self.price is None else money
            return sign * row.measured.quality.value, math.inf if cost is None else float(cost)

        return tuple(sorted(self.rows, key=place))


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """Where a comparison is: contender `number` of `of`, and `done` of `total` steps of what it is doing (0 of 0: not known)."""

    contender: str
    number: int
    of: int
    doing: str
    done: int
    total: int


OnProgress = Callable[[Stage], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Run:
    """A contender whose process gave a finding, and its scores by scorer."""

    spec: str
    finding: Finding
    scores: dict[str, Score]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Line:
    """A contender on a model: one line of the table to be."""

    name: str
    entry: Entry
    model: str


def compare(
    task: Task,
    contenders: Sequence[str] = DEFAULT_CONTENDERS,
    *,
    model: str | Sequence[str] = "smollm2",
    budget_seconds: float = 120.0,
    seed: int = 0,
    dev_limit: int | None = None,
    dtype: str = "auto",
    device: str = "auto",
    price: Price | None = None,
    clock: ClockName = "wall",
    store_root: Path | None = None,
    budget_calls: int | None = None,
    trace_folder: Path | None = None,
    on_progress: OnProgress | None = None,
) -> Comparison:
    """Trains what must be trained, measures everything, and puts it side by side.

    Args:
        task: what they are compared on; its dev rows judge and never choose anything.
        contenders: names as in `few-shot:8`, `prefix:NAME` or `tot(beam=3)`; each is a module in `contenders/` or a strategy.
        model: what the engine loads; several make a line each for every contender. `ENGINE:NAME` names the engine too.
        budget_seconds: training time for each contender that trains, on `clock`.
        seed: of every draw: examples, order, resamples, the dev rows under `dev_limit`.
        dev_limit: judge on that many dev rows, drawn with the seed.
        dtype, device: as the engine takes them; full fine-tuning is float32 always.
        price: without one, cost per success is given in machine seconds only.
        clock: `wall`, or `cpu` for processor seconds (fairer where other work runs on the machine).
        store_root: where named prefixes lie; the default store when absent.
        budget_calls: calls of the model that a strategy may make for one answer; by default the bound that strategies have anyway.
        trace_folder: every answer of a strategy leaves its trace here, as `MODEL/STRATEGY/ROW.jsonl`.
        on_progress: told at each step.

    Raises:
        ConfigError: no contenders, one twice, a budget that is not positive, an argument that cannot be used.
        RegistryError: a contender that does not exist.
        EvaluationError: a scorer of the task cannot run here.
    """
    lines = _lines(_check(contenders, budget_seconds, budget_calls), (model,) if isinstance(model, str) else tuple(model))
    judged = _limited(task, dev_limit, seed)
    _try_scorers(judged)
    report = on_progress or (lambda stage: None)
    runs: dict[str, _Run] = {}
    failures: dict[str, str] = {}
    for number, line in enumerate(lines, start=1):
        job = Job(
            spec=line.entry.spec,
            model=line.model,
            dtype=dtype,
            device=device,
            task=judged,
            budget_seconds=budget_seconds,
            seed=seed,
            clock=clock,
            store_root=store_root,
            budget_calls=budget_calls,
            trace_folder=None if trace_folder is None else trace_folder.absolute() / _as_file(line.model) / _as_file(line.entry.spec),
        )
        outcome = run_apart(job, _staged(report, line.name, number, len(lines)))
        if isinstance(outcome, str):
            failures[line.name] = outcome
            continue
        try:
            runs[line.name] = _Run(spec=line.name, finding=outcome, scores=_scores(judged, outcome))
        except EvaluationError as error:
            failures[line.name] = f"Its answers could not be scored: {error}"
    return _assemble(judged, lines, runs, failures, budget_seconds=budget_seconds, seed=seed, clock=clock, price=price)


def _lines(entries: Sequence[Entry], models: Sequence[str]) -> list[_Line]:
    if not models or len(set(models)) < len(models):
        raise ConfigError(f"Name each model once, and at least one; got {', '.join(models) or 'none'}.")
    several = len(models) > 1
    return [
        _Line(name=f"{entry.spec} · {model}" if several else entry.spec, entry=entry, model=model) for model in models for entry in entries
    ]


def _as_file(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9.,=_-]+", "-", name).strip("-.")[:100] or "model"


def _check(contenders: Sequence[str], budget_seconds: float, budget_calls: int | None) -> list[Entry]:
    if not contenders:
        raise ConfigError("There is nothing to compare: no contender was named. Try zero-shot, few-shot:8 and prefix.")
    if not (math.isfinite(budget_seconds) and budget_seconds > 0):
        raise ConfigError(f"`budget_seconds` must be a positive number of seconds; got {budget_seconds}.")
    if budget_calls is not None and budget_calls < 1:
        raise ConfigError(f"`budget_calls` must be 1 or more; got {budget_calls}.")
    entries = [parse(spec) for spec in contenders]
    specs = [entry.spec for entry in entries]
    twice = next((spec for spec in specs if specs.count(spec) > 1), None)
    if twice is not None:
        raise ConfigError(f"`{twice}` is named twice among the contenders. Name each once.")
    return entries


def _limited(task: Task, dev_limit: int | None, seed: int) -> Task:
    if dev_limit is None or dev_limit >= len(task.dev):
        return task
    return replace(task, dev=task.dev.shuffled(seed).limit(dev_limit))


def _try_scorers(task: Task) -> None:
    """Scores the references against themselves, so that a missing package is known before minutes are spent on training."""
    rows = task.dev.examples
    outcome = Outcome(
        answers=tuple(example.completions[0] for example in rows),
        references=tuple(example.completions for example in rows),
        prompts=tuple(example.prompt for example in rows),
        labels=task.labels,
    )
    for name in task.scorers:
        if not scorer.needs([name]):
            scorer.get(name).score(outcome)


def _staged(report: OnProgress, spec: str, number: int, of: int) -> Callable[[str, int, int], None]:
    return lambda doing, done, total: report(Stage(contender=spec, number=number, of=of, doing=doing, done=done, total=total))


def _scores(task: Task, finding: Finding) -> dict[str, Score]:
    """Every scorer's score. A strategy only answers: scorers of log-probabilities are left out for it where the table can do without."""
    outcome = finding.outcome(task)
    wanted = {task.primary, task.success.scorer}
    names = [name for name in task.scorers if finding.asked is None or name in wanted or not scorer.needs([name])]
    return {name: scorer.get(name).score(outcome) for name in names}


def _assemble(
    task: Task,
    lines: Sequence[_Line],
    runs: dict[str, _Run],
    failures: dict[str, str],
    *,
    budget_seconds: float,
    seed: int,
    clock: ClockName,
    price: Price | None,
) -> Comparison:
    reference = _reference(task, lines, runs)
    differences = _differences(task, runs, reference, seed)
    rows = tuple(
        ContenderRow(
            contender=line.name,
            model=line.model,
            strategy=line.entry.key == STRATEGY,
            measured=_measured(task, runs[line.name], differences.get(line.name), price, seed) if line.name in runs else None,
            failed=failures.get(line.name),
        )
        for line in lines
    )
    any_run = next(iter(runs.values()), None)
    return Comparison(
        task=task.name,
        kind=task.kind,
        primary=task.primary,
        higher_is_better=_higher_is_better(task, runs),
        success_rule=f"{task.success.scorer} ≥ {task.success.at_least:g}",
        model=", ".join(dict.fromkeys(line.model for line in lines)),
        device="unknown" if any_run is None else any_run.finding.device,
        budget_seconds=budget_seconds,
        clock=clock,
        seed=seed,
        train_rows=len(task.train),
        dev_rows=len(task.dev),
        reference=reference,
        price=price,
        machine=f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPU cores",
        versions={"python": platform.python_version()} | ({} if any_run is None else any_run.finding.versions),
        created=datetime.now(UTC),
        samples=tuple(Sample(prompt=row.prompt, references=row.completions) for row in task.dev.examples[:SAMPLE_ROWS]),
        rows=rows,
    )


def _higher_is_better(task: Task, runs: dict[str, _Run]) -> bool:
    return all(run.scores[task.primary].higher_is_better for run in runs.values())


def _reference(task: Task, lines: Sequence[_Line], runs: dict[str, _Run]) -> str | None:
    """The first prefix that ran, else the best of what ran."""
    for line in lines:
        if line.entry.key == REFERENCE_KEY and line.name in runs:
            return line.name
    sign = 1.0 if _higher_is_better(task, runs) else -1.0
    return max(runs, key=lambda spec: sign * runs[spec].scores[task.primary].value, default=None)


def _differences(task: Task, runs: dict[str, _Run], reference: str | None, seed: int) -> dict[str, Difference]:
    if reference is None:
        return {}
    base = runs[reference].scores[task.primary].statistic
    found = {
        spec: statistics.paired_bootstrap(run.scores[task.primary].statistic, base, len(task.dev), seed=seed)
        for spec, run in runs.items()
        if spec != reference
    }
    # On few rows every resample can point the same way; no paired test of n rows can be surer than all n signs agreeing.
    least = min(1.0, 2.0 ** (1 - len(task.dev)))
    p_values = {spec: max(least, result.p_value) for spec, result in found.items()}
    adjusted = holm(p_values)
    return {
        spec: Difference(
            value=result.difference,
            low=result.interval.low,
            high=result.interval.high,
            p_value=p_values[spec],
            p_adjusted=adjusted[spec],
        )
        for spec, result in found.items()
    }


def holm(p_values: dict[str, float]) -> dict[str, float]:
    """p-values adjusted for their number by Holm's step-down method (1979)."""
    adjusted: dict[str, float] = {}
    floor = 0.0
    for rank, name in enumerate(sorted(p_values, key=lambda name: p_values[name])):
        floor = max(floor, min(1.0, (len(p_values) - rank) * p_values[name]))
        adjusted[name] = floor
    return adjusted


def _measured(task: Task, run: _Run, difference: Difference | None, price: Price | None, seed: int) -> Measured:
    finding, primary, rows = run.finding, run.scores[task.primary], len(task.dev)
    quality = statistics.bootstrap_interval(primary.statistic, rows, seed=seed)
    successes = int(task.successes(run.scores).sum())
    paid = [cost_per_request(price, usage, seconds) for usage, seconds in zip(finding.usages(), finding.machine_seconds, strict=True)]
    known = [cost for cost in paid if cost is not None]
    total = sum(known, Decimal(0)) if len(known) == rows else None
    return Measured(
        quality=Estimate(value=primary.value, low=quality.low, high=quality.high),
        scores={name: score.value for name, score in run.scores.items()},
        successes=successes,
        success_rate=_rate(successes, rows),
        trained_parameters=finding.trained_parameters,
        artifact_bytes=finding.artifact_bytes,
        prefix_positions=finding.prefix_positions,
        prompt_tokens=fmean(finding.prompt_tokens),
        completion_tokens=fmean(finding.completion_tokens),
        latency_seconds=median(finding.latency_seconds),
        training_seconds=finding.training_seconds,
        training_memory_bytes=finding.training_memory_bytes,
        peak_memory_bytes=finding.peak_memory_bytes,
        machine_seconds_per_request=fmean(finding.machine_seconds),
        machine_seconds_per_success=seconds_per_success(sum(finding.machine_seconds), successes),
        cost_per_request=None if total is None else total / rows,
        cost_per_success=cost_per_success(total, successes),
        training_cost=machine_cost(price, finding.training_seconds),
        against_reference=difference,
        dtype=finding.dtype,
        notes=finding.notes,
        sample_answers=finding.answers[:SAMPLE_ROWS],
        asking=_asking(task, finding, successes),
    )


def _asking(task: Task, finding: Finding, successes: int) -> Asking:
    """What is known of the single answers; a contender that asks once has one for each row, which is all that it could choose."""
    rows = len(task.dev)
    if finding.asked is None:
        rate = _rate(successes, rows)
        return Asking(first_answer=rate, any_of_k=rate, answers=1.0, calls=1.0, statuses={"answered": rows})
    first = task.successes({task.success.scorer: _judged(task, [(place, row.first) for place, row in enumerate(finding.asked)])})
    every = [(place, answer) for place, row in enumerate(finding.asked) for answer in row.each]
    hits = task.successes({task.success.scorer: _judged(task, every)})
    reached = {place for (place, _), hit in zip(every, hits, strict=True) if hit}
    reasons = Counter(row.reason[:REASON_CHARACTERS] for row in finding.asked if row.status != "answered")
    return Asking(
        first_answer=_rate(int(first.sum()), rows),
        any_of_k=_rate(len(reached), rows),
        answers=fmean(max(1, len(row.candidates)) for row in finding.asked),
        calls=fmean(row.calls for row in finding.asked),
        statuses=dict(Counter(row.status for row in finding.asked)),
        reasons=dict(reasons.most_common(MOST_REASONS)),
    )


def _judged(task: Task, answers: Sequence[tuple[int, str]]) -> Score:
    """The success scorer's judgement of answers, each to the dev row whose place stands with it."""
    rows = task.dev.examples
    outcome = Outcome(
        answers=tuple(answer for _, answer in answers),
        references=tuple(rows[place].completions for place, _ in answers),
        prompts=tuple(rows[place].prompt for place, _ in answers),
        labels=task.labels,
    )
    return scorer.get(task.success.scorer).score(outcome)


def _rate(successes: int, rows: int) -> Estimate:
    interval = statistics.wilson_interval(successes, rows)
    return Estimate(value=successes / rows, low=interval.low, high=interval.high)
