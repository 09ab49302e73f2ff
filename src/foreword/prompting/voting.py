"""When a vote among samples is over: it cannot turn any more, or it almost surely will not.

    ballots = Ballots()
    ballots.add("18")
    ballots.add("18.00")
    ballots.leader, ballots.counts
    is_settled(ballots, left=38, confidence=0.95, rule="remaining")

Two rules. `beta` (Aggarwal et al. 2023, "Let's Sample Step by Step", section 3) asks how probable it is that the leading answer is drawn
more often than the second one in the long run. `remaining` asks how probable it is that the samples not yet drawn leave the leader ahead:
the same belief about the two answers, carried to the end of this vote and not to infinity. All in closed form.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal

from foreword.errors import ConfigError
from foreword.prompting.final_answer import vote_key

Rule = Literal["beta", "remaining"]
SILENT = 8
"""After so many samples without one vote, an adaptive vote is given up."""


@dataclass(slots=True)
class Ballots:
    """Votes in the order in which they were cast. Answers that mean the same count together; of equal counts the answer that came first is
    ahead."""

    counts: dict[str, int] = field(default_factory=dict)
    said: dict[str, str] = field(default_factory=dict)

    def add(self, answer: str) -> str:
        """Counts one vote; returns what it counts for."""
        key = vote_key(answer)
        self.counts[key] = self.counts.get(key, 0) + 1
        self.said.setdefault(key, answer)
        return key

    @property
    def total(self) -> int:
        """Votes cast."""
        return sum(self.counts.values())

    @property
    def leader(self) -> str | None:
        """What is ahead; None before the first vote."""
        return max(self.counts, key=lambda key: self.counts[key]) if self.counts else None

    @property
    def answers(self) -> tuple[str, ...]:
        """One answer of each kind as it was first said, in the order in which they came up."""
        return tuple(self.said.values())

    @property
    def first_two(self) -> tuple[int, int]:
        """Votes of the leader and of the second; 0 where there is none."""
        ordered = sorted(self.counts.values(), reverse=True)
        return (ordered[0] if ordered else 0, ordered[1] if len(ordered) > 1 else 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stopping:
    """When samples end.

    Attributes:
        n: samples at most.
        adaptive: stop when the vote is settled; otherwise all are drawn.
        confidence, rule: see `is_settled`.
        least: samples that are drawn in any case.
        batch: samples drawn at once, after which it is asked again whether to stop.
    """

    n: int
    adaptive: bool = True
    confidence: float = 0.95
    rule: Rule = "remaining"
    least: int = 3
    batch: int = 4

    def next_count(self, ballots: Ballots, drawn: int) -> int:
        """How many samples to draw now, 0 for no more. Args: drawn: samples so far, those included that were no vote."""
        left = self.n - drawn
        if not self.adaptive or left <= 0:
            return max(left, 0)
        if drawn < self.least:
            return min(left, max(self.batch, self.least - drawn))
        silent = ballots.leader is None
        if drawn >= SILENT if silent else is_settled(ballots, left=left, confidence=self.confidence, rule=self.rule):
            return 0
        return min(left, self.batch)


def is_settled(ballots: Ballots, *, left: int, confidence: float, rule: Rule = "remaining") -> bool:
    """Whether to stop.

    Args:
        left: samples that may still be drawn; each may be one more vote.
        confidence: how probable it must be that the leader stays ahead. 1 stops only when the vote cannot turn.
    """
    first, second = ballots.first_two
    if not first:
        return left == 0
    if cannot_turn(first, second, left):
        return True
    if confidence >= 1:
        return False
    probability = leads(first, second) if rule == "beta" else stays_ahead(first, second, left)
    return probability >= confidence


def cannot_turn(first: int, second: int, left: int) -> bool:
    """Whether the second answer stays behind even if it gets every vote that is left."""
    return first - second > left


@lru_cache(maxsize=1 << 12)
def leads(first: int, second: int) -> float:
    """The probability that the first of two answers is the likelier one, given their votes: Beta(first + 1, second + 1) beyond a half.

    A Beta tail with whole parameters is a binomial sum: of `first + second + 1` throws of a fair coin, at most `first` show heads.
    """
    _check_votes(first, second, 0)
    throws = first + second + 1
    return sum(math.comb(throws, heads) for heads in range(first + 1)) / (1 << throws)


@lru_cache(maxsize=1 << 14)
def stays_ahead(first: int, second: int, left: int) -> float:
    """The probability that the first of two answers is still ahead once the votes that are left are cast, all of them for one of the two.

    How many of them the first gets is beta-binomial: as likely to be drawn as their votes so far let one believe (Beta(first + 1,
    second + 1)). A tie counts as turned. With ever more votes left this becomes `leads`.
    """
    _check_votes(first, second, left)
    # Ahead with k more votes: first + k > second + left - k.
    least = max(0, (second + left - first) // 2 + 1)
    ours, theirs = first + 1, second + 1
    scale = _log_beta(ours, theirs)
    terms = (
        math.exp(_log_choose(left, gained) + _log_beta(ours + gained, theirs + left - gained) - scale) for gained in range(least, left + 1)
    )
    return min(1.0, math.fsum(terms))


def _log_choose(count: int, chosen: int) -> float:
    return math.lgamma(count + 1) - math.lgamma(chosen + 1) - math.lgamma(count - chosen + 1)


def _log_beta(one: int, other: int) -> float:
    return math.lgamma(one) + math.lgamma(other) - math.lgamma(one + other)


def _check_votes(first: int, second: int, left: int) -> None:
    if min(first, second, left) < 0:
        raise ConfigError(f"Votes are counted from 0; got {first} and {second}, with {left} left.")
