"""From data and settings to candidates and numbers of steps. Figures come from `docs/lab-notes.md`."""

from __future__ import annotations

from dataclasses import dataclass

from foreword.data.dataset import Dataset
from foreword.tuning.search import Candidate, SearchState, steps_in_all
from foreword.tuning.settings import TuneSettings

CLASSIFICATION_TARGETS = (400, 2000)
GENERATION_TARGETS = (400, 1600)
EPOCHS = 8
"""Small data are seen this often, large data in part."""
PROBE_SHARE = 0.12
"""Share of the winner's training that each probe takes."""


def candidates_for(settings: TuneSettings, train: Dataset) -> tuple[Candidate, ...]:
    """The ways to begin that are worth a probe; a setting given by the user leaves only its own value."""
    rates = (settings.learning_rate,) if settings.learning_rate else _rates(train, settings)
    if settings.initialisation != "auto":
        starts = ((settings.initialisation, 0),)
    elif train.labels:
        starts = (("few-shot:4", 0), ("few-shot:4", 1))
    elif settings.positions:
        starts = (("few-shot:8", 0),)
    else:
        starts = (("few-shot:2", 0),)
    return tuple(
        Candidate(initialisation=start, learning_rate=rate, positions=settings.positions, draw=draw) for start, draw in starts for rate in rates
    )


def _rates(train: Dataset, settings: TuneSettings) -> tuple[float, ...]:
    if settings.initialisation != "auto":
        return (0.02, 0.05)
    return (0.02,) if train.labels else (0.05,)


def targets_to_see(settings: TuneSettings, train: Dataset, targets: int) -> int:
    """Training targets for the winner when no budget says otherwise."""
    if settings.examples_seen:
        return settings.examples_seen
    least, most = CLASSIFICATION_TARGETS if train.labels else GENERATION_TARGETS
    return max(least, min(most, EPOCHS * targets))


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """Measured speed: seconds for a training step and for a dev evaluation."""

    step_seconds: float
    evaluation_seconds: float


def steps_within(seconds: float, pace: Pace, *, candidates: int, settings: TuneSettings) -> int:
    """Most steps of the winner that fit into the time, probes and evaluations included."""
    low, high = 1, 1_000_000
    while low < high:
        middle = (low + high + 1) // 2
        rung = rung_for(middle)
        halvings = steps_in_all(candidates, rung=rung, total=middle)
        evaluations = settings.evaluations + 2 * candidates
        if halvings * pace.step_seconds + evaluations * pace.evaluation_seconds <= seconds:
            low = middle
        else:
            high = middle - 1
    return low


def rung_for(total: int) -> int:
    """Steps of one probe."""
    return max(1, round(PROBE_SHARE * total))


def begin(total: int, *, candidates: int, settings: TuneSettings) -> SearchState:
    """The search for a winner of `total` steps."""
    return SearchState.begin(candidates, rung=rung_for(total), interval=max(1, -(-total // settings.evaluations)), total=total)
