from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from benchmarks import shared_tasks

from foreword.errors import DataError


def test_e2e_draws_the_pairs_asked_for(shared_data: Path) -> None:
    task = shared_tasks.e2e(shared_data, pairs=800, seed=0)
    assert len(task.train) == 800
    assert all(len(example.completions) == 1 for example in task.train)
    assert len(task.dev) == 100
    assert {example.prompt for example in task.train}.isdisjoint(example.prompt for example in task.dev)


def test_e2e_keeps_references_together_where_no_number_is_given(shared_data: Path) -> None:
    task = shared_tasks.e2e(shared_data, pairs=None, seed=0)
    assert max(len(example.completions) for example in task.train) > 4


def test_hate_speech_is_balanced_and_its_dev_set_does_not_depend_on_the_seed(shared_data: Path) -> None:
    first, second = (shared_tasks.hate_speech(shared_data, rows=300, seed=seed) for seed in (0, 1))
    assert set(Counter(example.completions[0] for example in first.train).values()) == {100}
    assert len(set(Counter(example.completions[0] for example in first.dev).values())) == 1
    assert first.dev.sha256 == second.dev.sha256
    assert first.train.sha256 != second.train.sha256


def test_webnlg_keeps_unseen_categories_out_of_training(shared_data: Path) -> None:
    task, seen = shared_tasks.webnlg(shared_data, pairs=2000, dev_rows=100, seed=0)
    assert seen == 100
    assert len(task.dev) > seen
    assert len(task.train) == 2000
    unseen = {example.prompt for example in task.dev.examples[seen:]}
    assert unseen.isdisjoint(example.prompt for example in task.train)


def test_missing_data_says_which_option_names_it(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="--data"):
        shared_tasks.e2e(tmp_path, pairs=10, seed=0)


def test_unrelated_requests_come_from_three_places_and_are_drawn_alike(shared_data: Path) -> None:
    first, again = (shared_tasks.unrelated_requests(shared_data, 20) for _ in range(2))
    assert first == again and len(first) == 60
    assert len(set(first)) == 60
