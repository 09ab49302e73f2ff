"""The benchmark's own parts: ranks, correlations, and enough variants."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from benchmarks import prompt_fit, prompt_tasks
from scipy import stats


def test_spearman_is_that_of_the_field():
    draw = np.random.default_rng(0)
    for _ in range(20):
        first, second = draw.integers(0, 6, 15).astype(float), draw.normal(size=15)
        assert prompt_fit.spearman(first, second) == pytest.approx(stats.spearmanr(first, second).statistic)
    assert math.isnan(prompt_fit.spearman(np.ones(4), np.arange(4.0)))


def test_there_are_enough_variants_and_all_differ(shared_data: Path):
    for task in (
        prompt_tasks.domains(shared_data, train=10, dev=10, held_out=10, seed=0),
        prompt_tasks.banking(shared_data, train=10, dev=10, seed=0),
    ):
        found = prompt_fit.variants(task)
        assert len(found) >= 20 and len({(system, user) for _, system, user in found}) == len({name for name, _, _ in found}) == len(found)
        assert all("{{ text }}" in user for _, _, user in found)


def test_no_row_is_in_two_parts(shared_data: Path):
    task = prompt_tasks.domains(shared_data, train=50, dev=50, held_out=50, seed=1)
    parts = [{row.prompt for row in part} for part in (task.train, task.dev, task.held_out)]
    assert [len(part) for part in (task.train, task.dev, task.held_out)] == [50, 50, 50]
    assert not (parts[0] & parts[1] or parts[0] & parts[2] or parts[1] & parts[2])
    for part in (task.train, task.dev, task.held_out):
        assert all(sum(row.completions[0] == label for row in part) == 10 for label in task.labels)
