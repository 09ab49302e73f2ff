"""How sure measured success is: the interval of a share, and of the difference between two shares on the same rows.

Closed forms, so that a search can ask after every step. `foreword.evaluate.statistics` has Wilson's interval as well, beside what is
resampled; that room lies above this one and cannot be asked from here.

Sources: Wilson 1927 (score interval); Agresti & Min 2005, "Simple improved confidence intervals for comparing matched proportions" (the
Wald interval with half an observation added to each of the four cells).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

LEVEL = 0.95


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """Successes among rows, with the interval of the share."""

    successes: int
    rows: int
    low: float
    high: float

    @property
    def share(self) -> float:
        """Between 0 and 1."""
        return self.successes / self.rows


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """By how much a share is higher than another on the same rows, with the interval of that."""

    difference: float
    low: float
    high: float


def share(successes: Sequence[bool], *, level: float = LEVEL) -> Share:
    """The share of successes among at least one row, with Wilson's interval."""
    count, rows = sum(successes), len(successes)
    z = NormalDist().inv_cdf((1 + level) / 2)
    rate, scale = count / rows, 1 + z * z / rows
    centre = rate + z * z / (2 * rows)
    spread = z * math.sqrt(rate * (1 - rate) / rows + z * z / (4 * rows * rows))
    low = 0.0 if count == 0 else max(0.0, (centre - spread) / scale)
    high = 1.0 if count == rows else min(1.0, (centre + spread) / scale)
    return Share(successes=count, rows=rows, low=low, high=high)


def difference(after: Sequence[bool], before: Sequence[bool], *, level: float = LEVEL) -> Difference:
    """How much higher the share of `after` is than that of `before`, row by row the same rows; at least one."""
    rows = len(after)
    gained = sum(new and not old for new, old in zip(after, before, strict=True))
    lost = sum(old and not new for new, old in zip(after, before, strict=True))
    z = NormalDist().inv_cdf((1 + level) / 2)
    # Half an observation more in each of the four cells.
    more, less, total = gained + 0.5, lost + 0.5, rows + 2
    centre = (more - less) / total
    spread = z * math.sqrt(max(more + less - (more - less) ** 2 / total, 0.0)) / total
    return Difference(difference=(gained - lost) / rows, low=max(-1.0, centre - spread), high=min(1.0, centre + spread))
