from __future__ import annotations

import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest
from benchmarks import personalize

from foreword.errors import DataError


def test_users_share_no_message_and_file_by_their_own_names(shared_data: Path) -> None:
    users = personalize.pseudo_users(shared_data, 64, seed=0)
    folders: dict[str | None, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for example in users:
        folders[example.user][example.completions[0]] += 1
    assert len(folders) == 64
    assert all(sorted(counts.values()) == [personalize.ROWS_PER_INTENT] * personalize.INTENTS for counts in folders.values())
    assert len({frozenset(counts) for counts in folders.values()}) > 60
    assert len({example.prompt for example in users}) == len(users)


def test_users_depend_on_the_seed_alone(shared_data: Path) -> None:
    first, again, other = (personalize.pseudo_users(shared_data, 4, seed=seed) for seed in (0, 0, 1))
    assert first.sha256 == again.sha256 != other.sha256


def test_missing_data_says_which_option_names_it(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="--data"):
        personalize.pseudo_users(tmp_path, 2, seed=0)
    command = [sys.executable, "-m", "benchmarks.personalize", "--quick", "--data", str(tmp_path / "none")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(personalize.__file__).parents[1])
    assert done.returncode == 2
    assert "--data" in done.stderr
