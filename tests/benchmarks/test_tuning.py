from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from benchmarks import tuning


def _comparison(**qualities: float) -> dict:
    rows = [
        {"contender": name, "measured": {"quality": {"value": value, "low": value, "high": value}, "training_seconds": 1.0}}
        for name, value in qualities.items()
    ]
    return {"rows": rows}


@pytest.fixture
def parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tuning, "PARTS", tmp_path)
    return tmp_path


def test_the_summary_holds_only_what_was_measured(parts: Path) -> None:
    assert tuning.summary() == {}
    speed = {"speed_ratio": 4.0, "speed_ratio_range": [3.0, 5.0], "memory_ratio": 0.5, "loss_difference": -0.1, "sides": {}}
    (parts / "speed-hate-bfloat16.json").write_text(json.dumps(speed))
    found = tuning.summary()
    assert (found["speed_ratio"], found["memory_ratio"], found["loss_difference"]) == (4.0, 0.5, -0.1)


def test_seeds_and_low_data_are_gathered_over_their_parts(parts: Path) -> None:
    (parts / "hate-seed-0.json").write_text(json.dumps(_comparison(prefix=0.8)))
    (parts / "hate-seed-3.json").write_text(json.dumps(_comparison(prefix=0.7)))
    for seed, value in enumerate((0.4, 0.6)):
        (parts / f"low-data-50-{seed}.json").write_text(json.dumps(_comparison(prefix=value, finetune=0.2)))
    found = tuning.summary()
    assert found["hate_seeds"] == {0: 0.8, 3: 0.7}
    assert found["hate_seeds_at_least_78"] == 1
    assert found["low_data"]["50"]["prefix"] == {"mean": pytest.approx(0.5), "seeds": [0.4, 0.6]}


def test_a_missing_data_folder_is_refused_with_its_option(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.tuning", "--quick", "--data", str(tmp_path / "none")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(tuning.__file__).parents[1])
    assert done.returncode == 2
    assert "--data" in done.stderr
