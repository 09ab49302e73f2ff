"""The README's picture: every contender that ran is in it, and the same results give the same file."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from foreword.evaluate.comparison import Comparison, ContenderRow, Estimate, Measured


@pytest.fixture
def picture(tools: Callable[[str], ModuleType]) -> Any:
    return tools("picture")


@pytest.fixture
def comparison() -> Comparison:
    """Two contenders that ran and one that failed."""
    sure = Estimate(value=0.5, low=0.4, high=0.6)

    def measured(quality: float, prompt_tokens: float, prefix_positions: int) -> Measured:
        return Measured(
            quality=Estimate(value=quality, low=quality - 2, high=quality + 2),
            scores={"bleu": quality},
            successes=5,
            success_rate=sure,
            trained_parameters=0,
            artifact_bytes=0,
            prefix_positions=prefix_positions,
            prompt_tokens=prompt_tokens,
            completion_tokens=20.0,
            latency_seconds=0.1,
            training_seconds=0.0,
            training_memory_bytes=0,
            peak_memory_bytes=0,
            machine_seconds_per_request=0.1,
            machine_seconds_per_success=0.2,
            cost_per_request=None,
            cost_per_success=None,
            training_cost=None,
            against_reference=None,
            dtype="float32",
            notes=(),
            sample_answers=(),
        )

    return Comparison(
        task="invented",
        kind="generation",
        primary="bleu",
        higher_is_better=True,
        success_rule="bleu",
        model="smollm2",
        device="cpu",
        budget_seconds=1.0,
        clock="wall",
        seed=0,
        train_rows=10,
        dev_rows=4,
        reference="prefix",
        price=None,
        machine="none",
        versions={},
        created=datetime(2026, 1, 1, tzinfo=UTC),
        samples=(),
        rows=(
            ContenderRow(contender="few-shot:8", measured=measured(30.0, 600.0, 0)),
            ContenderRow(contender="prefix", measured=measured(50.0, 40.0, 32)),
            ContenderRow(contender="lora", failed="out of memory"),
        ),
    )


def test_it_names_who_ran(picture: Any, comparison: Comparison, tmp_path: Path):
    picture.draw([comparison, comparison], tmp_path / "drawn.svg")
    text = (tmp_path / "drawn.svg").read_text(encoding="utf-8")
    assert text.count(">few-shot:8<") == text.count(">prefix<") == 2
    assert ">lora<" not in text
    assert "invented: 10 training rows, 4 dev rows" in text


def test_the_same_results_give_the_same_file(picture: Any, comparison: Comparison, tmp_path: Path):
    for name in ("first.svg", "second.svg"):
        picture.draw([comparison], tmp_path / name)
    assert (tmp_path / "first.svg").read_bytes() == (tmp_path / "second.svg").read_bytes()


def test_it_reads_what_compare_prints(picture: Any, comparison: Comparison, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from foreword.evaluate.report import to_json

    (tmp_path / "result.json").write_text(to_json(comparison), encoding="utf-8")
    monkeypatch.setattr("sys.argv", ["picture.py", str(tmp_path / "result.json"), "--out", str(tmp_path / "made/drawn.svg")])
    picture.main()
    assert ">prefix<" in (tmp_path / "made/drawn.svg").read_text(encoding="utf-8")


def test_labels_keep_their_distance_and_their_order(picture: Any) -> None:
    placed = picture.spread([0.5, 0.9, 0.52, 0.1], gap=0.05)
    assert placed == pytest.approx([0.47, 0.9, 0.52, 0.1])
    ordered = sorted(placed)
    assert all(high - low >= 0.05 - 1e-12 for low, high in pairwise(ordered))
