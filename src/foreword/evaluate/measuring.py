"""Runs one contender: loads the model, prepares, answers the dev rows, and writes down what was seen.

Each contender has a process of its own, started by `comparison.py` with `run_job`: what it does to the model, the memory
it takes and the way it fails are its own. The job arrives as JSON in a folder that the parent made; the finding goes
back as JSON in the same folder. The parent holds the process's standard input open for as long as it lives. Progress goes
line by line through the process's standard output, as JSON; whatever a library prints is sent to standard error.
"""

from __future__ import annotations

import json
import os
import random
import resource
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, TypeAdapter

from foreword.engine import Differentiable, Row
from foreword.errors import EvaluationError, ForewordError, OutOfMemory
from foreword.evaluate import engine_name, scorer
from foreword.evaluate.asked import AskedRow, ask_all
from foreword.evaluate.contender import ClockName, Context, Prepared, Solver, parse, trains
from foreword.evaluate.label import label_meant
from foreword.evaluate.scorer import Outcome
from foreword.evaluate.task import Task
from foreword.types import Example, Message, Sampling, Usage

JOB_FILE = "job.json"
FINDING_FILE = "finding.json"
LATENCY_ROWS = 10
SHARE_OF_LATENCY_ROWS = 8
"""One row in so many is answered alone as well by strategies, which may take a hundred calls for it."""
ORPHANED = 3
TARGET_ROWS = 8
CONTENT_FREE = ("N/A", "", "[MASK]")
"""Zhao et al. 2021, "Calibrate Before Use", §5: the ensemble of content-free inputs."""

Progress = Callable[[str, int, int], None]
"""Called with the stage, how much of it is done, and of how much (0 and 0 while that is not known)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What a contender's process is to do; every field can be written as JSON."""

    spec: str
    model: str
    dtype: str
    device: str
    task: Task
    budget_seconds: float
    seed: int
    clock: ClockName
    store_root: Path | None
    budget_calls: int | None = None
    trace_folder: Path | None = None


JOB = TypeAdapter(Job)


class Finding(BaseModel):
    """What was seen of one contender, row by row, before anything is scored.

    Attributes:
        answers: the text of each dev row's answer, or the label ranked first.
        label_log_probs, prior_log_probs, target_log_probs: as in `Outcome`, where the task's scorers need them.
        prompt_tokens, prefix_positions, completion_tokens: per dev row.
        asked: of contenders that are strategies, how each dev row was asked; token counts are then those of all calls together.
        machine_seconds: per dev row: the wall time of its batch over the batch's rows.
        latency_seconds: wall times of single requests, one at a time.
        training_memory_bytes, peak_memory_bytes: highest resident memory up to the end of training, and of all; with a GPU,
            the GPU's highest allocation is added.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    answers: tuple[str, ...]
    label_log_probs: tuple[tuple[float, ...], ...] | None
    prior_log_probs: tuple[float, ...] | None
    target_log_probs: tuple[tuple[float, ...], ...] | None
    prompt_tokens: tuple[int, ...]
    prefix_positions: int
    completion_tokens: tuple[int, ...]
    machine_seconds: tuple[float, ...]
    latency_seconds: tuple[float, ...]
    trained_parameters: int
    artifact_bytes: int
    training_seconds: float
    training_memory_bytes: int
    peak_memory_bytes: int
    notes: tuple[str, ...]
    device: str
    dtype: str
    versions: dict[str, str]
    asked: tuple[AskedRow, ...] | None = None

    def outcome(self, task: Task) -> Outcome:
        """What the scorers judge."""
        rows = task.dev.examples
        return Outcome(
            answers=self.answers,
            references=tuple(example.completions for example in rows),
            prompts=tuple(example.prompt for example in rows),
            labels=task.labels,
            label_log_probs=None if self.label_log_probs is None else np.array(self.label_log_probs),
            prior_log_probs=None if self.prior_log_probs is None else np.array(self.prior_log_probs),
            target_log_probs=None if self.target_log_probs is None else tuple(np.array(row) for row in self.target_log_probs),
        )

    def usages(self) -> tuple[Usage, ...]:
        """Tokens and positions of each dev row."""
        return tuple(
            Usage(prompt_tokens=prompt, completion_tokens=completion, prefix_positions=self.prefix_positions)
            for prompt, completion in zip(self.prompt_tokens, self.completion_tokens, strict=True)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Answers:
    """The part of a finding that comes from answering; fields as in `Finding`."""

    answers: tuple[str, ...]
    prompt_tokens: tuple[int, ...]
    completion_tokens: tuple[int, ...]
    machine_seconds: tuple[float, ...]
    latency_seconds: tuple[float, ...]
    label_log_probs: tuple[tuple[float, ...], ...] | None = None
    prior_log_probs: tuple[float, ...] | None = None
    asked: tuple[AskedRow, ...] | None = None


def run_job(folder: Path) -> int:
    """The life of a contender's process; returns its exit code.

    A `ForewordError` and a lack of memory are written down as the reason of the failure. Anything else is a bug, and
    ends the process with its traceback on standard error.
    """
    end_with_parent()
    lines = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    job = JOB.validate_json((folder / JOB_FILE).read_bytes())
    try:
        finding = run(job, scratch=folder, progress=_line_writer(lines))
    except ForewordError as error:
        _write(folder, {"failed": str(error), "kind": type(error).__name__})
        return 1
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        _write(folder, {"failed": f"Memory ran out ({error}). Use a smaller model or shorter examples.", "kind": OutOfMemory.__name__})
        return 1
    _write(folder, {"finding": finding.model_dump()})
    return 0


def end_with_parent() -> None:
    """Ends this process when the other end of its standard input closes: a parent that was killed must not leave it training."""

    def watch() -> None:
        while os.read(0, 1):
            pass
        os._exit(ORPHANED)

    threading.Thread(target=watch, daemon=True).start()


def is_out_of_memory(error: BaseException) -> bool:
    """Whether torch or Python ran out of memory; torch says it in a plain RuntimeError on the CPU."""
    return isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError" or "can't allocate memory" in str(error)


def run(job: Job, *, scratch: Path, progress: Progress) -> Finding:
    """Loads, prepares and measures in this process.

    Raises:
        ForewordError: whatever the engine, the contender or the data gave reason for.
    """
    entry = parse(job.spec)
    progress("loading the model", 0, 0)
    dtype = getattr(entry.module, "WEIGHTS_DTYPE", job.dtype)
    engine = engine_name.load(job.model, dtype=dtype, device=job.device)
    if trains(entry.module) and not isinstance(engine, Differentiable):
        raise EvaluationError(
            f"`{entry.spec}` needs a model that can be trained or takes a prefix; `{job.model}` only answers. Leave it out, or compare it "
            "on a model of the `transformers` engine."
        )
    work = scratch / "work"
    work.mkdir()
    context = Context(
        engine=engine,
        task=job.task,
        argument=entry.argument,
        budget_seconds=job.budget_seconds,
        seed=job.seed,
        clock=job.clock,
        store_root=job.store_root,
        scratch=work,
        report=lambda stage: progress(stage, 0, 0),
        budget_calls=job.budget_calls,
    )
    progress("preparing", 0, 0)
    prepared = entry.module.prepare(context)
    training_memory = peak_memory()
    return _finding(prepared, job, training_memory=training_memory, progress=progress)


def _finding(prepared: Prepared, job: Job, *, training_memory: int, progress: Progress) -> Finding:
    task = job.task
    conversations = [prepared.conversations(example) for example in task.dev]
    answers = _answers(prepared, job, conversations, progress)
    wants_targets = prepared.solver is None and "target_log_probs" in scorer.needs(task.scorers)
    targets = _target_log_probs(prepared, task.dev.examples, conversations, progress) if wants_targets else None
    engine, prefix = prepared.engine, prepared.prefix
    return Finding(
        **{field: getattr(answers, field) for field in _Answers.__slots__},
        target_log_probs=targets,
        prefix_positions=0 if prefix is None else prefix.positions,
        trained_parameters=prepared.trained_parameters,
        artifact_bytes=prepared.artifact_bytes,
        training_seconds=prepared.training_seconds,
        training_memory_bytes=training_memory,
        peak_memory_bytes=peak_memory(),
        notes=prepared.notes,
        device=str(getattr(engine, "device", "no device")),
        dtype=str(getattr(engine, "dtype", "no number format")).removeprefix("torch."),
        versions=_versions(),
    )


def _answers(prepared: Prepared, job: Job, conversations: Sequence[Sequence[Message]], progress: Progress) -> _Answers:
    task = job.task
    if prepared.solver is not None:
        return _solve(prepared.solver, job, conversations, progress)
    if task.kind == "classification" and isinstance(prepared.engine, Differentiable):
        return _rank_labels(prepared, task, conversations, progress)
    return _generate(prepared, task, conversations, progress)


def _solve(solver: Solver, job: Job, conversations: Sequence[Sequence[Message]], progress: Progress) -> _Answers:
    """A strategy's answers; in a classification, the labels that they mean."""
    try:
        solver.warm_up()
        counter = _counter("answering", len(conversations), progress)
        began = time.perf_counter()
        rows = ask_all(solver, conversations, labels=job.task.labels, progress=counter, trace_folder=job.trace_folder)
        seconds = (time.perf_counter() - began) / len(conversations)
        most = min(LATENCY_ROWS, max(1, len(conversations) // SHARE_OF_LATENCY_ROWS))
        alone = lambda one: solver.solve([one], take=lambda place, solved: None)  # noqa: E731
        latency = _latencies(conversations, alone, progress, most=most, warm=True)
    finally:
        solver.close()
    return _Answers(
        answers=tuple(row.answer for row in rows),
        prompt_tokens=tuple(row.prompt_tokens for row in rows),
        completion_tokens=tuple(row.completion_tokens for row in rows),
        machine_seconds=(seconds,) * len(rows),
        latency_seconds=latency,
        asked=tuple(rows),
    )


def _generate(prepared: Prepared, task: Task, conversations: Sequence[Sequence[Message]], progress: Progress) -> _Answers:
    engine, prefix = prepared.engine, prepared.prefix
    sampling = Sampling(max_new_tokens=task.max_new_tokens)
    counter = _counter("answering", len(conversations), progress)
    completions = engine.generate(conversations, prefix=prefix, sampling=sampling, progress=counter)
    latency = _latencies(conversations, lambda one: engine.generate([one], prefix=prefix, sampling=sampling), progress)
    texts = (completion.text for completion in completions)
    return _Answers(
        answers=tuple(texts) if task.kind == "generation" else tuple(label_meant(text, task.labels or ()) for text in texts),
        prompt_tokens=tuple(completion.usage.prompt_tokens for completion in completions),
        completion_tokens=tuple(completion.usage.completion_tokens for completion in completions),
        machine_seconds=tuple(completion.seconds for completion in completions),
        latency_seconds=latency,
    )


def _rank_labels(prepared: Prepared, task: Task, conversations: Sequence[Sequence[Message]], progress: Progress) -> _Answers:
    engine, prefix, labels = prepared.engine, prepared.prefix, task.labels
    if not labels:
        raise EvaluationError(f"The task `{task.name}` is a classification without labels. Name them in the task.")
    counter = _counter("ranking labels", len(conversations), progress)
    began = time.perf_counter()
    log_probs = engine.score_labels(conversations, labels, prefix=prefix, progress=counter)
    seconds = (time.perf_counter() - began) / len(conversations)
    empty_inputs = [Example(messages=(Message(role="user", content=text),), completions=()) for text in CONTENT_FREE]
    content_free = [prepared.conversations(example) for example in empty_inputs]
    prior = mean_prior(np.array(engine.score_labels(content_free, labels, prefix=prefix)))
    latency = _latencies(conversations, lambda one: engine.score_labels([one], labels, prefix=prefix), progress)
    chosen = [labels[int(np.argmax(row))] for row in log_probs]
    return _Answers(
        answers=tuple(chosen),
        label_log_probs=tuple(tuple(row) for row in log_probs),
        prior_log_probs=tuple(float(value) for value in prior),
        prompt_tokens=tuple(len(_prompt(prepared, conversation)) for conversation in conversations),
        completion_tokens=tuple(len(engine.answer_ids(label)) for label in chosen),
        machine_seconds=(seconds,) * len(conversations),
        latency_seconds=latency,
    )


def mean_prior(log_probs: np.ndarray) -> np.ndarray:
    """Log of the mean label distribution over content-free inputs (Zhao et al. 2021, §5).

    Args:
        log_probs: shape (inputs, labels); log-likelihoods, not normalised over the labels.
    """
    shifted = np.exp(log_probs - log_probs.max(axis=1, keepdims=True))
    # A label so unlikely that it underflows still has a log; it stays finite for the calibration.
    mean = (shifted / shifted.sum(axis=1, keepdims=True)).mean(axis=0)
    return np.log(np.maximum(mean, np.finfo(np.float64).tiny))


def _target_log_probs(
    prepared: Prepared, examples: Sequence[Example], conversations: Sequence[Sequence[Message]], progress: Progress
) -> tuple[tuple[float, ...], ...]:
    """Log-probability of every reference token, a row's references one after the other."""
    import torch

    engine, prefix = prepared.engine, prepared.prefix
    tensors = (None, None) if prefix is None else (prefix.keys(engine.dtype, engine.device), prefix.values(engine.dtype, engine.device))
    rows = [
        Row(prompt=_prompt(prepared, conversation), targets=tuple(engine.answer_ids(text) for text in example.completions))
        for example, conversation in zip(examples, conversations, strict=True)
    ]
    counter = _counter("scoring references", len(rows), progress)
    found: list[tuple[float, ...]] = []
    for start in range(0, len(rows), TARGET_ROWS):
        part = rows[start : start + TARGET_ROWS]
        with torch.inference_mode():
            flat = engine.target_log_probs(part, *tensors).tolist()
        for row in part:
            count = sum(len(target) for target in row.targets)
            found.append(tuple(flat[:count]))
            flat = flat[count:]
        counter(len(part))
    return tuple(found)


def _prompt(prepared: Prepared, conversation: Sequence[Message]) -> tuple[int, ...]:
    prompt_format = "full" if prepared.prefix is None else prepared.prefix.header.prompt_format
    return tuple(prepared.engine.render(conversation, prompt_format=prompt_format))


def _latencies(
    conversations: Sequence[Any], ask: Callable[[Any], object], progress: Progress, *, most: int = LATENCY_ROWS, warm: bool = False
) -> tuple[float, ...]:
    """Wall seconds of single requests over a few rows, the same for every contender.

    Args:
        warm: the model has answered one alone before; else one request goes first, unmeasured.
    """
    chosen = random.Random(0).sample(list(conversations), min(most, len(conversations)))
    counter = _counter("measuring latency", len(chosen), progress)
    if not warm:
        ask(chosen[0])
    seconds = []
    for conversation in chosen:
        began = time.perf_counter()
        ask(conversation)
        seconds.append(time.perf_counter() - began)
        counter(1)
    return tuple(seconds)


def peak_memory() -> int:
    """Bytes: the highest resident memory of this process so far, plus the GPU's highest allocation where one is used."""
    gpu = 0
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
        gpu = torch.cuda.max_memory_allocated()
    return _resident_peak() + gpu


def _resident_peak() -> int:
    """Linux counts the parent's peak into a child's `ru_maxrss` across exec; the kernel's own mark starts afresh there."""
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _counter(stage: str, total: int, progress: Progress) -> Callable[[int], None]:
    done = 0

    def count(more: int) -> None:
        nonlocal done
        done += more
        progress(stage, done, total)

    progress(stage, 0, total)
    return count


def _line_writer(lines: IO[str]) -> Progress:
    def write(stage: str, done: int, total: int) -> None:
        lines.write(json.dumps({"stage": stage, "done": done, "total": total}) + "\n")

    return write


def _write(folder: Path, content: dict[str, Any]) -> None:
    """Writes the finding whole or not at all."""
    partial = folder / f"{FINDING_FILE}.partial"
    with partial.open("w", encoding="utf-8") as file:
        json.dump(content, file)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(folder / FINDING_FILE)


def _versions() -> dict[str, str]:
    from importlib.metadata import PackageNotFoundError, version

    found = {}
    for package in ("foreword", "torch", "transformers", "peft"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found
