"""The tasks of a served agent: done a few at a time, kept for a while after their end, each known only to whoever gave it."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Protocol

from pydantic import JsonValue

from foreword.agent.a2a import (
    TASK_NOT_CANCELABLE,
    TASK_NOT_FOUND,
    UNDER_WAY,
    A2aMessage,
    Artifact,
    Part,
    Refused,
    Task,
    TaskState,
    TaskStatus,
    new_message,
)
from foreword.agent.agent import AgentResult
from foreword.errors import ForewordError

logger = logging.getLogger(__name__)


class Works(Protocol):
    """What is served: an agent, a team, anything that works towards a goal."""

    async def run(self, goal: str) -> AgentResult:
        """Works towards a goal."""
        ...


@dataclass(slots=True, kw_only=True, eq=False)
class Job:
    """A task and its work."""

    id: str
    owner: str
    asked: A2aMessage
    goal: str
    state: TaskState = "submitted"
    since: str = field(default_factory=lambda: _now())
    said: str = ""
    result: AgentResult | None = None
    work: asyncio.Task[None] | None = None
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    def enter(self, state: TaskState, said: str = "") -> None:
        """Goes on to another state."""
        self.state, self.said, self.since = state, said, _now()
        if state not in UNDER_WAY:
            self.ended.set()

    def task(self, history_length: int | None) -> Task:
        """The task as it is told of."""
        context = self.asked.context_id or self.id
        result, answer = self.result, ()
        if result is not None and self.state == "completed":
            answer = (Artifact(artifact_id=f"{self.id}-answer", name="answer", parts=(Part(text=result.text),)),)
        message = new_message("agent", self.said, task_id=self.id, context_id=context) if self.said else None
        figures: JsonValue = None if result is None else {"status": result.status, "steps": result.steps, "calls": result.calls}
        return Task(
            id=self.id,
            context_id=context,
            status=TaskStatus(state=self.state, message=message, timestamp=self.since),
            artifacts=answer or None,
            history=None if history_length == 0 else (self.asked.model_copy(update={"task_id": self.id, "context_id": context}),),
            metadata=None if figures is None else {"foreword": figures},
        )


class Jobs:
    """The tasks of one served agent. For one event loop."""

    def __init__(self, worker_for: Callable[[str], Works], *, at_once: int = 4, most_waiting: int = 64, most_kept: int = 512) -> None:
        """Args: worker_for: who works for a caller; most_kept: tasks that are remembered, those under way included."""
        self._worker_for, self._most_waiting, self._most_kept = worker_for, most_waiting, most_kept
        self._room = asyncio.Semaphore(at_once)
        self._at_once = at_once
        self._jobs: OrderedDict[str, Job] = OrderedDict()

    def add(self, owner: str, asked: A2aMessage, goal: str) -> Job:
        """Takes a task on, or rejects it where too many wait."""
        job = Job(id=secrets.token_hex(16), owner=owner, asked=asked, goal=goal)
        under_way = sum(other.state in UNDER_WAY for other in self._jobs.values())
        self._jobs[job.id] = job
        self._drop_old()
        if under_way >= self._at_once + self._most_waiting:
            job.enter("rejected", f"{under_way} tasks are under way already. Come again later.")
        else:
            job.work = asyncio.create_task(self._worked(job))
            # One that is cancelled before its first step runs none of its own code.
            job.work.add_done_callback(lambda work: None if job.ended.is_set() else job.enter("canceled"))
        return job

    def get(self, owner: str, number: str) -> Job:
        """A task of this owner's. Raises `Refused`; somebody else's is as unknown as none."""
        job = self._jobs.get(number)
        if job is None or job.owner != owner:
            raise Refused(TASK_NOT_FOUND, "There is no such task, or it ended long ago.")
        return job

    async def cancel(self, job: Job) -> None:
        """Ends a task. Raises `Refused` where it has ended."""
        if job.work is None or job.ended.is_set():
            raise Refused(TASK_NOT_CANCELABLE, f"The task has ended: {job.state}.")
        job.work.cancel()
        await job.ended.wait()

    async def close(self) -> None:
        """Ends all tasks."""
        under_way = [job.work for job in self._jobs.values() if job.work is not None and not job.ended.is_set()]
        for work in under_way:
            work.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)

    async def _worked(self, job: Job) -> None:
        try:
            async with self._room:
                job.enter("working")
                job.result = result = await self._worker_for(job.owner).run(job.goal)
            job.enter("completed" if result.status == "goal-met" else "failed", "" if result.status == "goal-met" else _explained(result))
        except ForewordError as error:
            job.enter("failed", str(error))
        except asyncio.CancelledError:
            job.enter("canceled")
            raise
        except Exception:
            # What went wrong is the operator's to see; whoever asked learns that it did.
            logger.exception("a task failed unexpectedly")
            job.enter("failed", "The agent failed. Its log says why.")

    def _drop_old(self) -> None:
        surplus = len(self._jobs) - self._most_kept
        for number in [number for number, job in self._jobs.items() if job.ended.is_set()][: max(0, surplus)]:
            del self._jobs[number]


def _explained(result: AgentResult) -> str:
    so_far = f"\nSo far: {result.text}" if result.text else ""
    return f"{result.status}: {result.reason}{so_far}"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
