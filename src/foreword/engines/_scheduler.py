"""Continuous batching: requests join and leave between steps, long prompts are read in pieces, and each has its own prefix.

The iteration-level scheduling of Orca (Yu et al. 2022, §3.1) with the chunked prefill of Sarathi (Agrawal et al. 2023, §4.2): a step
computes the next token of every running request and, in what is left of its token budget, pieces of the prompts of those that join.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from foreword.engine import Deliver
from foreword.engines._answer import Answer
from foreword.engines._constraint import Matcher
from foreword.engines._resident import NO_PREFIX, PrefixTensors
from foreword.engines._sampling import Choice, Sampler
from foreword.engines._slots import SlotPool
from foreword.engines._step import Chunk, StepAttention
from foreword.types import Delta, FinishReason, Sampling, TokenLogprob, Usage

if TYPE_CHECKING:
    from foreword.engines.transformers import TransformersEngine

MOST_COPIED = 256
"""A prefix of up to so many positions is copied into the slots of a request that uses it alone, where attention is fastest."""
KEPT_SLOTS = 1024
"""An idle scheduler gives its memory back when a long request has made its rows longer than this."""
LEAST_CHUNK = 32
"""Prompt tokens that a step reads even when running requests fill its budget, so that nobody waits for ever."""


def _nobody(delta: Delta) -> None:
    """Takes a piece that nobody waits for."""


@dataclass(slots=True, kw_only=True, eq=False)
class Job:
    """One request in the scheduler.

    Attributes:
        prefix: its tensors; held until the job ends, whatever happens to the file or the cache.
        row, filled, shared: see `Seat`; no row before the job is admitted.
        read: prompt tokens computed so far.
        cancelled: set from any thread; the job ends before the next step.
    """

    prompt: tuple[int, ...]
    prefix: PrefixTensors
    sampling: Sampling
    sampler: Sampler
    answer: Answer
    deliver: Deliver = _nobody
    matcher: Matcher | None = None
    row: int = -1
    filled: int = 0
    shared: PrefixTensors | None = None
    read: int = 0
    tokens: list[int] = field(default_factory=list)
    cancelled: bool = False

    @property
    def usage(self) -> Usage:
        """What it took so far."""
        return Usage(prompt_tokens=len(self.prompt), completion_tokens=len(self.tokens), prefix_positions=self.prefix.positions)


@dataclass(slots=True, kw_only=True)
class Counts:
    """What was computed since the start."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    steps: int = 0
    finished: int = 0


class Scheduler:
    """Runs jobs to their end, a step at a time. Belongs to one thread; only `Job.cancelled` may be set from others."""

    def __init__(
        self, engine: TransformersEngine, *, most_rows: int, step_tokens: int, to_attention: Mapping[str, Any] | None = None
    ) -> None:
        """
        Args:
            most_rows: requests that run at once.
            step_tokens: tokens computed in one step, the running requests' newest ones included.
            to_attention: passed on to every layer's attention function in every step.
        """
        self._engine, self.most_rows, self._step_tokens = engine, most_rows, step_tokens
        self._to_attention = dict(to_attention or {})
        geometry = engine.geometry
        self._pool = SlotPool(
            layers=geometry.layers,
            heads=geometry.kv_heads,
            head_dim=geometry.head_dim,
            most_rows=most_rows,
            most_slots=engine.window,
            dtype=engine.dtype,
            device=engine.device,
        )
        self.waiting: deque[Job] = deque()
        self.running: list[Job] = []
        self.counts = Counts()

    def add(self, job: Job) -> None:
        """Puts a job at the end of the queue."""
        self.waiting.append(job)

    @torch.inference_mode()
    def step(self) -> bool:
        """Computes one step; False when there is nothing left to do."""
        self.end_cancelled()
        self._admit()
        chunks = self._plan()
        if not chunks:
            if self._pool.slots > KEPT_SLOTS:
                self._pool.release()
            return False
        attention = StepAttention(self._pool, chunks, device=self._engine.device)
        chosen = [place for place, chunk in enumerate(attention.chunks) if self._is_read(chunk)]
        logits_CV = self._engine.step_logits(attention, chosen, **self._to_attention)
        self._advance(attention.chunks)
        self._choose([_job(attention.chunks[place]) for place in chosen], logits_CV)
        return True

    def fail_all(self) -> None:
        """Ends every running job with `error`; those that wait stay."""
        # Nothing is moved between rows: whatever failed may fail again.
        failed, self.running = self.running, []
        for job in failed:
            self.counts.finished += 1
            _deliver_end(job, "error")

    # --- who is in this step ----------------------------------------------------------------------------------

    def end_cancelled(self) -> None:
        """Ends every job that was given up."""
        for job in [job for job in self.running if job.cancelled]:
            self._finish(job, "cancelled")
        if any(job.cancelled for job in self.waiting):
            gone = [job for job in self.waiting if job.cancelled]
            self.waiting = deque(job for job in self.waiting if not job.cancelled)
            for job in gone:
                _deliver_end(job, "cancelled")

    def _admit(self) -> None:
        while self.waiting and len(self.running) < self.most_rows:
            job = self.waiting.popleft()
            job.row = len(self.running)
            self._pool.ensure(job.row + 1, 1)
            if job.prefix.positions and job.prefix.key_LGND is not None and job.prefix.value_LGND is not None:
                others = any(other.prefix is job.prefix for other in self.running)
                if others or job.prefix.positions > MOST_COPIED:
                    job.shared = job.prefix
                else:
                    self._pool.ensure(job.row + 1, job.prefix.positions)
                    self._pool.put(job.row, job.prefix.key_LGND, job.prefix.value_LGND)
                    job.filled = job.prefix.positions
            self.running.append(job)

    def _plan(self) -> list[Chunk]:
        chunks = [Chunk(seat=job, tokens=(job.tokens[-1],)) for job in self.running if job.tokens]
        left = max(LEAST_CHUNK, self._step_tokens - len(chunks))
        for job in self.running:
            if not job.tokens and left:
                tokens = job.prompt[job.read : job.read + left]
                chunks.append(Chunk(seat=job, tokens=tokens))
                left -= len(tokens)
        return chunks

    @staticmethod
    def _is_read(chunk: Chunk) -> bool:
        """Whether the chunk ends where a token is to be chosen."""
        job = _job(chunk)
        return bool(job.tokens) or job.read + len(chunk.tokens) == len(job.prompt)

    def _advance(self, chunks: Iterable[Chunk]) -> None:
        self.counts.steps += 1
        for chunk in chunks:
            job, count = _job(chunk), len(chunk.tokens)
            job.filled += count
            if not job.tokens:
                job.read += count
                self.counts.prompt_tokens += count

    # --- what they say ----------------------------------------------------------------------------------------

    def _choose(self, jobs: Sequence[Job], logits_CV: Tensor) -> None:
        simple = [place for place, job in enumerate(jobs) if job.sampler.greedy_only and job.matcher is None]
        greedy = dict(zip(simple, logits_CV[simple].argmax(-1).tolist(), strict=True)) if simple else {}
        for place, job in enumerate(jobs):
            if place in greedy:
                self._accept(job, Choice(token_id=greedy[place]))
            else:
                self._choose_with_care(job, logits_CV[place])

    def _choose_with_care(self, job: Job, logits_V: Tensor) -> None:
        allowed_V = None if job.matcher is None else job.matcher.allowed().to(logits_V.device)
        if allowed_V is not None and not bool(allowed_V.any()):
            # The grammar leads nowhere from here.
            self._finish(job, "error")
            return
        self._accept(job, job.sampler.choose(logits_V, allowed_V))

    def _accept(self, job: Job, choice: Choice) -> None:
        token = choice.token_id
        if token in self._engine.stop_ids and not job.sampling.ignore_end:
            self._finish(job, "stop")
            return
        job.tokens.append(token)
        self.counts.completion_tokens += 1
        if job.matcher is not None:
            job.matcher.accept(token)
        text = job.answer.add(token)
        logprobs = () if choice.logprob is None else (self._logprob(choice),)
        over = job.answer.ended or (job.matcher is not None and job.matcher.finished)
        reason: FinishReason | None = "stop" if over else "length" if len(job.tokens) >= job.sampling.max_new_tokens else None
        if reason is None:
            job.deliver(Delta(text=text, token_ids=(token,), logprobs=logprobs))
        else:
            self._finish(job, reason, text=text, token_ids=(token,), logprobs=logprobs)

    def _finish(
        self, job: Job, reason: FinishReason, *, text: str = "", token_ids: tuple[int, ...] = (), logprobs: tuple[TokenLogprob, ...] = ()
    ) -> None:
        """Ends a running job; the last row moves into its place."""
        last = self.running[-1]
        if last is not job:
            self._pool.move(last.row, job.row, last.filled)
            self.running[job.row] = last
            last.row = job.row
        self.running.pop()
        self.counts.finished += 1
        _deliver_end(job, reason, text=text, token_ids=token_ids, logprobs=logprobs)

    def _logprob(self, choice: Choice) -> TokenLogprob:
        assert choice.logprob is not None
        read = self._engine.token_text
        top = tuple(TokenLogprob(token_id=token, text=read(token), logprob=logprob) for token, logprob in choice.top)
        return TokenLogprob(token_id=choice.token_id, text=read(choice.token_id), logprob=choice.logprob, top=top)


def _job(chunk: Chunk) -> Job:
    assert isinstance(chunk.seat, Job)
    return chunk.seat


def _deliver_end(
    job: Job, reason: FinishReason, *, text: str = "", token_ids: tuple[int, ...] = (), logprobs: tuple[TokenLogprob, ...] = ()
) -> None:
    rest = text + job.answer.finish()
    # Nothing of a job that has ended keeps a prefix in memory.
    usage, job.prefix, job.shared = job.usage, NO_PREFIX, None
    job.deliver(Delta(text=rest, token_ids=token_ids, logprobs=logprobs, finish_reason=reason, usage=usage))
