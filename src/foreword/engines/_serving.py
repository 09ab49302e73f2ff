"""The embedded engine at work for many callers: a queue in front of the scheduler and a thread that steps it."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING

from foreword.engine import Deliver, Load, Request
from foreword.engines._resident import ResidentPrefixes
from foreword.engines._scheduler import Job, Scheduler
from foreword.errors import Overloaded, ServingError
from foreword.types import Delta

if TYPE_CHECKING:
    from foreword.engines.transformers import TransformersEngine

logger = logging.getLogger(__name__)

MOST_ROWS, QUEUE, RESIDENT_BYTES, STEP_TOKENS = 32, 1000, 1 << 30, 512
PACE_WINDOW = 64
"""Requests whose ends tell how fast the queue moves."""
LONGEST_RETRY = 60.0


class _Ticket:
    def __init__(self, job: Job, wake: threading.Condition) -> None:
        self._job, self._wake = job, wake

    @property
    def prompt_tokens(self) -> int:
        return len(self._job.prompt)

    def cancel(self) -> None:
        self._job.cancelled = True
        with self._wake:
            self._wake.notify()


class Serving:
    """Meets `Serves`. Every request is checked in the caller's thread; the model runs in this object's own."""

    def __init__(
        self,
        engine: TransformersEngine,
        *,
        max_rows: int = MOST_ROWS,
        queue: int = QUEUE,
        resident_bytes: int = RESIDENT_BYTES,
        step_tokens: int = STEP_TOKENS,
    ) -> None:
        """
        Args:
            max_rows: requests that run at once.
            queue: requests that may wait beside them; one more is refused.
            resident_bytes: bound on the prefixes held in memory.
            step_tokens: tokens computed in one step; smaller ones make joining requests disturb running ones less.
        """
        self._engine, self._queue = engine, queue
        self._scheduler = Scheduler(engine, most_rows=max_rows, step_tokens=step_tokens)
        self._prefixes = ResidentPrefixes(engine.read_prefixes, most_bytes=resident_bytes)
        self._work = threading.Condition()
        self._arrived: deque[Job] = deque()
        self._under_way = 0
        self._ends: deque[float] = deque(maxlen=PACE_WINDOW)
        self._closing = self._stopped = False
        self._thread = threading.Thread(target=self._run, name=f"foreword-{engine.name}", daemon=True)
        self._thread.start()

    @property
    def name(self) -> str:
        return self._engine.name

    @property
    def window(self) -> int:
        return self._engine.window

    def submit(self, request: Request, deliver: Deliver) -> _Ticket:
        if self._closing:
            raise ServingError("The engine is closing and takes no more requests.")
        if self._is_full():
            raise self._overloaded()
        prefix = self._prefixes.get(request.prefix)

        def counted(delta: Delta) -> None:
            if delta.finish_reason is not None:
                with self._work:
                    self._under_way -= 1
                    self._ends.append(time.monotonic())
                    self._work.notify_all()
            deliver(delta)

        job = self._engine.job(request, prefix, counted)
        with self._work:
            if self._closing:
                raise ServingError("The engine is closing and takes no more requests.")
            if self._is_full():
                raise self._overloaded()
            self._under_way += 1
            self._arrived.append(job)
            self._work.notify_all()
        return _Ticket(job, self._work)

    def keep(self, prefix: tuple[Path, ...], *, pinned: bool = False) -> None:
        self._prefixes.get(prefix, pinned=pinned)

    def let_go(self, prefix: tuple[Path, ...]) -> None:
        self._prefixes.let_go(prefix)

    def resident(self) -> tuple[tuple[Path, ...], ...]:
        return self._prefixes.paths()

    def load(self) -> Load:
        held, counts = self._prefixes.residence(), self._scheduler.counts
        running = len(self._scheduler.running)
        return Load(
            running=running,
            waiting=max(0, self._under_way - running),
            resident_prefixes=held.prefixes,
            resident_bytes=held.size,
            prompt_tokens=counts.prompt_tokens,
            completion_tokens=counts.completion_tokens,
            steps=counts.steps,
            prefix_hits=held.hits,
            prefix_misses=held.misses,
        )

    def close(self, *, drain_seconds: float = 0.0) -> None:
        with self._work:
            self._closing = True
            self._work.wait_for(lambda: self._under_way == 0, timeout=drain_seconds)
            self._stopped = True
            self._work.notify_all()
        self._thread.join()

    # --- the queue --------------------------------------------------------------------------------------------

    def _is_full(self) -> bool:
        return self._under_way >= self._queue + self._scheduler.most_rows

    def _overloaded(self) -> Overloaded:
        seconds = self._seconds_until_room()
        return Overloaded(f"{self._queue} requests wait already. Come again in about {seconds:.0f} s.", retry_after=seconds)

    def _seconds_until_room(self) -> float:
        """How long the queue takes to halve at the pace of late."""
        ends = list(self._ends)
        if len(ends) < 2 or ends[-1] == ends[0]:
            return 1.0
        pace = (len(ends) - 1) / (ends[-1] - ends[0])
        return min(LONGEST_RETRY, max(1.0, self._queue / 2 / pace))

    # --- the thread -------------------------------------------------------------------------------------------

    def _run(self) -> None:
        idle = True
        while True:
            with self._work:
                if idle:
                    self._work.wait_for(lambda: self._arrived or self._stopped or self._has_cancelled())
                while self._arrived:
                    self._scheduler.add(self._arrived.popleft())
                if self._stopped:
                    break
            idle = not self._step()
        self._cancel_all()

    def _step(self) -> bool:
        try:
            return self._scheduler.step()
        except Exception:
            # Whatever broke one step (memory, a bug in a model's own code) ends the requests in it, not the server.
            logger.exception("A step failed; the requests in it end with an error.")
            self._scheduler.fail_all()
            return True

    def _has_cancelled(self) -> bool:
        return any(job.cancelled for job in self._scheduler.waiting)

    def _cancel_all(self) -> None:
        for job in [*self._scheduler.running, *self._scheduler.waiting]:
            job.cancelled = True
        self._scheduler.end_cancelled()
