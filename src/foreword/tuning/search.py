"""Which candidate gets the next steps: successive halving (Jamieson & Talwalkar 2016) whose winner trains on.

Small-model classification is bimodal: a run sits on the chance plateau or leaves it, and which one depends on
start, rate and length more than on method. So several candidates take a few steps each, the worse half is dropped,
and the last one keeps its steps and goes on. Pure bookkeeping: no tensors here.
"""

from __future__ import annotations

import math

from pydantic import BaseModel, ConfigDict


class Candidate(BaseModel):
    """One way to begin."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    initialisation: str
    learning_rate: float
    positions: int | None = None
    draw: int = 0

    def __str__(self) -> str:
        positions = f", {self.positions} positions" if self.positions else ""
        return f"{self.initialisation}{f' (draw {self.draw + 1})' if self.draw else ''}, rate {self.learning_rate:g}{positions}"


class Progress(BaseModel):
    """How far one candidate is.

    Attributes:
        dev: (step, dev loss) at each evaluation.
    """

    model_config = ConfigDict(extra="forbid")

    step: int = 0
    alive: bool = True
    dev: list[tuple[int, float]] = []

    @property
    def latest(self) -> float:
        """The last dev loss."""
        return self.dev[-1][1]

    @property
    def best(self) -> tuple[int, float]:
        """Step and value of the lowest dev loss; infinite stands for a loss that was not finite."""
        return min(self.dev, key=lambda point: point[1])


class SearchState(BaseModel):
    """The whole search; what a resumed run starts from.

    Attributes:
        rung: steps each candidate takes before the next halving.
        interval: steps between evaluations after the search.
        total: steps of the winner.
        target: steps that the candidates still alive are to reach now.
    """

    model_config = ConfigDict(extra="forbid")

    progress: list[Progress]
    rung: int
    interval: int
    total: int
    target: int
    final: bool = False

    @classmethod
    def begin(cls, candidates: int, *, rung: int, interval: int, total: int) -> SearchState:
        """A search of `candidates`; a single one goes straight to its final training."""
        rung = max(1, min(rung, total))
        single = candidates == 1
        target = total if single else rung
        return cls(
            progress=[Progress() for _ in range(candidates)], rung=rung, interval=max(1, interval), total=total, target=target, final=single
        )

    def alive(self) -> list[int]:
        """Candidates still in the race."""
        return [number for number, progress in enumerate(self.progress) if progress.alive]

    def next_segment(self) -> tuple[int, int] | None:
        """(candidate, step to reach), or None when the winner is done."""
        for number in self.alive():
            progress = self.progress[number]
            if progress.step < self.target:
                return number, min(self.target, progress.step + (self.interval if self.final else self.rung))
        return None

    def record(self, number: int, step: int, dev_loss: float) -> None:
        """Notes what a segment gave, and halves the field when every candidate has reached the target.

        A candidate whose loss is infinite is dropped with the worse half; one is left whatever happens.
        """
        progress = self.progress[number]
        progress.step = step
        progress.dev.append((step, dev_loss))
        alive = self.alive()
        if self.final or any(self.progress[other].step < self.target for other in alive):
            return
        ranked = sorted(alive, key=lambda other: (self.progress[other].latest, self.progress[other].best[1]))
        finite = sum(math.isfinite(self.progress[other].latest) for other in ranked)
        for loser in ranked[max(1, min(finite, (len(ranked) + 1) // 2)) :]:
            self.progress[loser].alive = False
        self.final = len(self.alive()) == 1
        self.target = self.total if self.final else min(self.total, self.target + self.rung)

    def winner(self) -> int:
        """The candidate that is left, or the best one so far."""
        return min(self.alive(), key=lambda number: self.progress[number].best[1] if self.progress[number].dev else math.inf)

    def stalled(self, patience: int) -> bool:
        """Whether none of the winner's last `patience` evaluations was better than all before them."""
        losses = [loss for _, loss in self.progress[self.winner()].dev]
        return self.final and 0 < patience < len(losses) and min(losses[-patience:]) >= min(losses[:-patience])


def steps_in_all(candidates: int, *, rung: int, total: int) -> int:
    """Steps that a search of this size takes, the winner's training included."""
    steps, alive, reached = 0, candidates, 0
    while alive > 1 and reached < total:
        stride = min(rung, total - reached)
        steps += alive * stride
        reached += stride
        alive = (alive + 1) // 2
    return steps + (total - reached if alive == 1 else 0)


def probe_steps(candidates: int, *, rung: int) -> int:
    """Steps that the winner has taken when it is alone, where none of its rivals fails."""
    return rung * (candidates - 1).bit_length()
