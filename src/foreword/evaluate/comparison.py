"""One table: each contender under the same budget on the same rows, with what it costs and how sure the difference is.

    comparison = compare(task, ["zero-shot", "few-shot:8", "prefix", "lora"], model="smollm2", budget_seconds=120)

Contenders run one after the other, each in a process of its own (`measuring.py`), so that none inherits another's memory,
weights or crash. One that fails is a row that says why.
"""

from __future__ import annotations

import json
import math
import os
import platform
import signal
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from statistics import fmean, median

from pydantic import AwareDatetime, BaseModel, ConfigDict

from foreword.cost.prices import Price, cost_per_request, cost_per_success, machine_cost, seconds_per_success
from foreword.errors import ConfigError, EvaluationError
from foreword.evaluate import scorer, statistics
from foreword.evaluate.contender import ClockName, Entry, parse
from foreword.evaluate.measuring import FINDING_FILE, JOB, JOB_FILE, Finding, Job
from foreword.evaluate.scorer import Outcome, Score
from foreword.evaluate.task import Task

DEFAULT_CONTENDERS = ("zero-shot", "few-shot:8", "prefix")
REFERENCE_KEY = "prefix"
SAMPLE_ROWS = 3
ERROR_LINES = 12
_CHILD = "import sys; from pathlib import Path; from foreword.evaluate.measuring import run_job; sys.exit(run_job(Path(sys.argv[1])))"


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="strings")


class Estimate(_Frozen):
    """A figure and its 95 % interval."""

    value: float
    low: float
    high: float


class Difference(_Frozen):
    """A row's primary score less the reference's, on the same dev rows; paired bootstrap.

    Attributes:
        p_value: two-sided, of this comparison alone.
        p_adjusted: the same after Holm's correction (1979) for all rows of the table.
    """

    value: float
    low: float
    high: float
    p_value: float
    p_adjusted: float


class Measured(_Frozen):
    """Everything known of a contender that ran.

    Attributes:
        quality: the task's primary scorer.
        scores: every scorer's value.
        successes, success_rate: by the task's success rule; the interval is Wilson's.
        prompt_tokens, completion_tokens: mean per request.
        prefix_positions: virtual positions before each prompt.
        latency_seconds: median of single requests.
        machine_seconds_per_request: mean over the batched run: what a request takes of a machine that is kept busy.
        machine_seconds_per_success, cost_per_success: failures are paid for; None when nothing succeeded or no price is known.
        training_cost: of the training time at the machine-hour's price.
        against_reference: None for the reference itself.
        sample_answers: to the first dev rows.
    """

    quality: Estimate
    scores: dict[str, float]
    successes: int
    success_rate: Estimate
    trained_parameters: int
    artifact_bytes: int
    prefix_positions: int
    prompt_tokens: float
    completion_tokens: float
    latency_seconds: float
    training_seconds: float
    training_memory_bytes: int
    peak_memory_bytes: int
    machine_seconds_per_request: float
    machine_seconds_per_success: float | None
    cost_per_request: Decimal | None
    cost_per_success: Decimal | None
    training_cost: Decimal | None
    against_reference: Difference | None
    dtype: str
    notes: tuple[str, ...]
    sample_answers: tuple[str, ...]

    @property
    def prompt_positions(self) -> float:
        """Mean positions attended before the first answer token: prefix and prompt."""
        return self.prefix_positions + self.prompt_tokens


class ContenderRow(_Frozen):
    """One line of the table: either what was measured, or why it failed."""

    contender: str
    measured: Measured | None = None
    failed: str | None = None


class Sample(_Frozen):
    """A dev row that the report shows the answers to."""

    prompt: str
    references: tuple[str, ...]


class Comparison(_Frozen):
    """A finished comparison.

    Attributes:
        reference: the contender that the others are tested against: the first prefix that ran, else the best.
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
        """Best quality first; rows that failed come last."""
        sign = -1.0 if self.higher_is_better else 1.0
        return tuple(sorted(self.rows, key=lambda row: math.inf if row.measured is None else sign * row.measured.quality.value))


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


def compare(
    task: Task,
    contenders: Sequence[str] = DEFAULT_CONTENDERS,
    *,
    model: str = "smollm2",
    budget_seconds: float = 120.0,
    seed: int = 0,
    dev_limit: int | None = None,
    dtype: str = "auto",
    device: str = "auto",
    price: Price | None = None,
    clock: ClockName = "wall",
    store_root: Path | None = None,
    on_progress: OnProgress | None = None,
) -> Comparison:
    """Trains what must be trained, measures everything, and puts it side by side.

    Args:
        task: what they are compared on; its dev rows judge and never choose anything.
        contenders: names as in `few-shot:8` or `prefix:NAME`; each is a module in `contenders/`.
        model: what the engine loads.
        budget_seconds: training time for each contender that trains, on `clock`.
        seed: of every draw: examples, order, resamples, the dev rows under `dev_limit`.
        dev_limit: judge on that many dev rows, drawn with the seed.
        dtype, device: as the engine takes them; full fine-tuning is float32 always.
        price: without one, cost per success is given in machine seconds only.
        clock: `wall`, or `cpu` for processor seconds (fairer where other work runs on the machine).
        store_root: where named prefixes lie; the default store when absent.
        on_progress: told at each step.

    Raises:
        ConfigError: no contenders, one twice, a budget that is not positive, an argument that cannot be used.
        RegistryError: a contender that does not exist.
        EvaluationError: a scorer of the task cannot run here.
    """
    entries = _check(contenders, budget_seconds)
    judged = _limited(task, dev_limit, seed)
    _try_scorers(judged)
    report = on_progress or (lambda stage: None)
    runs: dict[str, _Run] = {}
    failures: dict[str, str] = {}
    for number, entry in enumerate(entries, start=1):
        job = Job(
            spec=entry.spec,
            model=model,
            dtype=dtype,
            device=device,
            task=judged,
            budget_seconds=budget_seconds,
            seed=seed,
            clock=clock,
            store_root=store_root,
        )
        outcome = _in_own_process(job, _staged(report, entry.spec, number, len(entries)))
        if isinstance(outcome, str):
            failures[entry.spec] = outcome
            continue
        try:
            runs[entry.spec] = _Run(spec=entry.spec, finding=outcome, scores=_scores(judged, outcome))
        except EvaluationError as error:
            failures[entry.spec] = f"Its answers could not be scored: {error}"
    return _assemble(judged, entries, runs, failures, model=model, budget_seconds=budget_seconds, seed=seed, clock=clock, price=price)


def _check(contenders: Sequence[str], budget_seconds: float) -> list[Entry]:
    if not contenders:
        raise ConfigError("There is nothing to compare: no contender was named. Try zero-shot, few-shot:8 and prefix.")
    if not (math.isfinite(budget_seconds) and budget_seconds > 0):
        raise ConfigError(f"`budget_seconds` must be a positive number of seconds; got {budget_seconds}.")
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


def _in_own_process(job: Job, progress: Callable[[str, int, int], None]) -> Finding | str:
    """The finding of a contender's own process, or the reason why there is none."""
    with tempfile.TemporaryDirectory(prefix="foreword-compare-") as name:
        folder = Path(name)
        (folder / JOB_FILE).write_bytes(JOB.dump_json(job))
        with (folder / "stderr").open("wb") as errors, _child(folder, errors) as process:
            assert process.stdout is not None
            for line in process.stdout:
                told = json.loads(line)
                progress(told["stage"], told["done"], told["total"])
            code = process.wait()
        written = folder / FINDING_FILE
        if not written.exists():
            return _crash(code, folder / "stderr")
        content = json.loads(written.read_text(encoding="utf-8"))
    return content["failed"] if "failed" in content else Finding.model_validate(content["finding"])


@contextmanager
def _child(folder: Path, errors: object) -> Iterator[subprocess.Popen[str]]:
    """The contender's process; ended when the block is left early."""
    # A new interpreter and not multiprocessing's spawn: that would import the caller's main script again.
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    process = subprocess.Popen(
        [sys.executable, "-c", _CHILD, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=errors,  # type: ignore[arg-type]
        text=True,
        encoding="utf-8",
        env=environment,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()


def _crash(code: int, errors: Path) -> str:
    """Why a process ended without a word of its own."""
    if code < 0:
        name = signal.Signals(-code).name
        hint = "; most often that means that memory ran out" if name == "SIGKILL" else ""
        return f"Its process was ended by {name}{hint}."
    with errors.open(encoding="utf-8", errors="replace") as file:
        last = [line.rstrip() for line in deque(file, maxlen=ERROR_LINES)]
    return f"Its process failed with exit code {code}:\n" + "\n".join(last)


def _scores(task: Task, finding: Finding) -> dict[str, Score]:
    outcome = finding.outcome(task)
    return {name: scorer.get(name).score(outcome) for name in task.scorers}


def _assemble(
    task: Task,
    entries: Sequence[Entry],
    runs: dict[str, _Run],
    failures: dict[str, str],
    *,
    model: str,
    budget_seconds: float,
    seed: int,
    clock: ClockName,
    price: Price | None,
) -> Comparison:
    reference = _reference(task, entries, runs)
    differences = _differences(task, runs, reference, seed)
    rows = tuple(
        ContenderRow(contender=entry.spec, measured=_measured(task, runs[entry.spec], differences.get(entry.spec), price, seed))
        if entry.spec in runs
        else ContenderRow(contender=entry.spec, failed=failures[entry.spec])
        for entry in entries
    )
    any_run = next(iter(runs.values()), None)
    return Comparison(
        task=task.name,
        kind=task.kind,
        primary=task.primary,
        higher_is_better=_higher_is_better(task, runs),
        success_rule=f"{task.success.scorer} ≥ {task.success.at_least:g}",
        model=model,
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


def _reference(task: Task, entries: Sequence[Entry], runs: dict[str, _Run]) -> str | None:
    """The first prefix that ran, else the best of what ran."""
    for entry in entries:
        if entry.key == REFERENCE_KEY and entry.spec in runs:
            return entry.spec
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
    rate = statistics.wilson_interval(successes, rows)
    paid = [cost_per_request(price, usage, seconds) for usage, seconds in zip(finding.usages(), finding.machine_seconds, strict=True)]
    known = [cost for cost in paid if cost is not None]
    total = sum(known, Decimal(0)) if len(known) == rows else None
    return Measured(
        quality=Estimate(value=primary.value, low=quality.low, high=quality.high),
        scores={name: score.value for name, score in run.scores.items()},
        successes=successes,
        success_rate=Estimate(value=successes / rows, low=rate.low, high=rate.high),
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
    )
