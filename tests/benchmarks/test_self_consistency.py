"""The replay of recorded samples: it does what the strategy does."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from benchmarks import self_consistency
from benchmarks.self_consistency import Recorded

from asking import solved
from foreword.prompting.voting import Stopping


def drawn(seed: int) -> tuple[int, ...]:
    """Forty votes with a leader that may be weak, and some samples without an answer."""
    draw = random.Random(seed)
    sure = draw.choice((0.3, 0.6, 0.95))
    votes = [0 if draw.random() < sure else draw.randint(-1, 3) for _ in range(40)]
    names: dict[int, int] = {}
    return tuple(-1 if vote < 0 else names.setdefault(vote, len(names)) for vote in votes)


@pytest.mark.parametrize("seed", range(12))
def test_a_replay_ends_where_the_strategy_ends(seed: int) -> None:
    votes = drawn(seed)
    winner, samples = self_consistency.replay(votes, Stopping(n=40))
    found = solved("self-consistency(n=40)", ["no idea" if vote < 0 else f"Answer: {vote}" for vote in votes])
    assert (str(winner), samples) == (found.final, found.calls)


def test_orders_hold_the_same_samples() -> None:
    row = Recorded(votes=drawn(1), right=0)
    found = list(self_consistency.orders(row, 3))
    assert found[0] == row.votes and all(sorted(votes) == sorted(row.votes) for votes in found)
    assert found == list(self_consistency.orders(row, 3)) and len(set(found)) > 1


def test_a_vote_that_draws_all_loses_nothing() -> None:
    rows = [Recorded(votes=drawn(seed), right=0) for seed in range(4)]
    for each in self_consistency.compared(rows, Stopping(n=40, adaptive=False), most_orders=3):
        assert each["fixed"] == each["adaptive"] and each["agrees"] == 1 and each["samples"] == 40


def test_samples_are_counted_by_meaning() -> None:
    texts = ["Answer: 12", "Answer: 12.0", "Answer: 9", "I do not know"]
    assert self_consistency._counted(texts, "9", number=False) == Recorded(votes=(0, 0, 1, -1), right=1)
    assert self_consistency._counted(["so 7", "none"], "8", number=True) == Recorded(votes=(0, -1), right=None)


def test_what_is_recorded_is_read_again(tmp_path: Path) -> None:
    recorded = {"addition": [Recorded(votes=drawn(1), right=0), Recorded(votes=drawn(2), right=None)]}
    self_consistency.write(tmp_path / "votes.json", recorded)
    assert self_consistency.read(tmp_path / "votes.json") == recorded


@pytest.mark.skipif(not self_consistency.RECORDED.is_file(), reason="no samples are recorded yet")
def test_the_recorded_samples_are_whole() -> None:
    for rows in self_consistency.read(self_consistency.RECORDED).values():
        for row in rows:
            assert len(row.votes) == self_consistency.SAMPLES and (row.right is None or row.right in row.votes)
