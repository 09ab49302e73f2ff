"""How a strategy answered the rows of a task: what each took, what it chose from, and how it ended."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from foreword.errors import EvaluationError
from foreword.evaluate.contender import Solver
from foreword.evaluate.label import label_meant
from foreword.prompting.strategy import Solved, Status
from foreword.telemetry.trace import Trace
from foreword.types import Message


class AskedRow(BaseModel):
    """One row, asked by a strategy.

    Attributes:
        answer: the final answer, or the label that it means.
        candidates: answers that it was chosen from, in the order in which they came up; empty where there was no choice.
        status: `answered`, `budget` or `failed`; `reason` says why it is not the first.
        note: how it ended, where the strategy says so.
        seconds, model_seconds: wall time of this row beside all others, and the part of it in which a call was under way.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    answer: str
    candidates: tuple[str, ...]
    status: Status
    reason: str
    note: str
    calls: int
    prompt_tokens: int
    completion_tokens: int
    seconds: float
    model_seconds: float

    @property
    def first(self) -> str:
        """The answer that came up first."""
        return self.candidates[0] if self.candidates else self.answer

    @property
    def each(self) -> tuple[str, ...]:
        """Every different answer that came up, the chosen one among them."""
        return tuple(dict.fromkeys((self.answer, *self.candidates)))


def ask_all(
    solver: Solver,
    conversations: Sequence[Sequence[Message]],
    *,
    labels: Sequence[str] | None = None,
    progress: Callable[[int], None],
    trace_folder: Path | None = None,
) -> list[AskedRow]:
    """Every conversation's row, in order.

    Args:
        labels: answers are taken for the labels that they mean.
        trace_folder: each row's trace is written there as `00001.jsonl`, counted from 1.

    Raises:
        EvaluationError: a trace cannot be written.
    """
    rows: dict[int, AskedRow] = {}
    written: list[Future[None]] = []
    if trace_folder is not None:
        _make(trace_folder)
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="foreword-traces") as desk:

        def take(place: int, solved: Solved) -> None:
            rows[place] = _row(solved, labels)
            if trace_folder is not None:
                written.append(desk.submit(_write, solved.trace, trace_folder / f"{place + 1:05d}.jsonl"))
            progress(1)

        solver.solve(conversations, take=take)
    for one in written:
        one.result()
    return [rows[place] for place in range(len(conversations))]


def _row(solved: Solved, labels: Sequence[str] | None) -> AskedRow:
    def meant(text: str) -> str:
        return text if labels is None else label_meant(text, labels)

    return AskedRow(
        answer=meant(solved.final),
        candidates=tuple(meant(candidate) for candidate in solved.candidates),
        status=solved.status,
        reason=solved.reason,
        note=solved.note,
        calls=solved.calls,
        prompt_tokens=solved.usage.prompt_tokens,
        completion_tokens=solved.usage.completion_tokens,
        seconds=solved.seconds,
        model_seconds=solved.model_seconds,
    )


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritten(folder, error) from error


def _write(trace: Trace, path: Path) -> None:
    try:
        trace.write(path)
    except OSError as error:
        raise _unwritten(path, error) from error


def _unwritten(path: Path, error: OSError) -> EvaluationError:
    return EvaluationError(f"The trace {path} cannot be written: {error.strerror or error}. Choose another folder for traces.")
