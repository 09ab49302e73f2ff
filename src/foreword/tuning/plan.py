"""From data and settings to candidates and numbers of steps. Figures come from `docs/lab-notes.md`."""

from __future__ import annotations

from dataclasses import dataclass

from foreword.data.dataset import Dataset
from foreword.tuning.search import Candidate, SearchState, steps_in_all
from foreword.tuning.settings import TuneSettings

CLASSIFICATION_TARGETS = (400, 2000)
GENERATION_TARGETS = (400, 1200)
EPOCHS = 8
"""Small data are seen this often, large data in part."""
PROBE_SHARE = 0.2
"""Share of the winner's training that each probe takes; shorter ones still sit on the chance plateau and tell nothing."""
SEARCH_FROM_TARGETS = 8000
"""Below this many training targets probes cost more than they find, and the most reliable start is taken unprobed."""
LEAST_SHOTS, MOST_SHOTS = 3, 6
"""Examples in a start for labels: each takes some thirty positions that every training row attends to."""
CLASSIFICATION_BATCH, GENERATION_BATCH = 8, 16


def batch_targets(settings: TuneSettings, train: Dataset) -> int:
    """Targets per step: labels carry little gradient each, so smaller batches and more steps serve them better."""
    return settings.batch_targets or (CLASSIFICATION_BATCH if train.labels else GENERATION_BATCH)


def candidates_for(settings: TuneSettings, train: Dataset, *, targets: int) -> tuple[Candidate, ...]:
    """The ways to begin that are worth a probe within `targets`; a setting given by the user leaves only its own value."""
    starts, rates = _classification_starts(len(train.labels)) if train.labels else _generation_starts(settings)
    if settings.initialisation != "auto":
        starts, rates = [(settings.initialisation, 0)], rates[::-1] if settings.initialisation == "random" else rates
    if settings.learning_rate:
        rates = [settings.learning_rate]
    made = [
        Candidate(initialisation=start, learning_rate=rate, positions=settings.positions, draw=draw)
        for rate in rates
        for start, draw in starts
    ]
    return tuple(made if targets >= SEARCH_FROM_TARGETS else made[:1])


def _classification_starts(labels: int) -> tuple[list[tuple[str, int]], list[float]]:
    # Every label equally often, where that is not too long: a label shown twice as often starts as the answer to everything.
    shots = labels * -(-LEAST_SHOTS // labels) if labels <= MOST_SHOTS else LEAST_SHOTS
    return [(f"few-shot:{shots}", 0), (f"few-shot:{shots}", 1)], [0.02, 0.01]


def _generation_starts(settings: TuneSettings) -> tuple[list[tuple[str, int]], list[float]]:
    # Many positions cut down to the wanted few start lower than few positions read as they are.
    return [("few-shot:8" if settings.positions else "few-shot:2", 0)], [0.05, 0.02]


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
