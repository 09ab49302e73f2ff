from __future__ import annotations

import re
from datetime import UTC, datetime
from xml.etree import ElementTree

import pytest

from foreword.evaluate.comparison import Comparison
from foreword.evaluate.picture import HEIGHT, Scale, bars, scatter
from foreword.evaluate.row import ContenderRow, Estimate, Measured


def measured(success: float, seconds: float | None) -> Measured:
    estimate = Estimate(value=success, low=max(0.0, success - 0.1), high=min(1.0, success + 0.1))
    return Measured(
        quality=estimate,
        scores={"number": success},
        successes=5,
        success_rate=estimate,
        trained_parameters=0,
        artifact_bytes=0,
        prefix_positions=0,
        prompt_tokens=40.0,
        completion_tokens=20.0,
        latency_seconds=0.1,
        training_seconds=0.0,
        training_memory_bytes=0,
        peak_memory_bytes=0,
        machine_seconds_per_request=0.1,
        machine_seconds_per_success=seconds,
        cost_per_request=None,
        cost_per_success=None,
        training_cost=None,
        against_reference=None,
        dtype="float32",
        notes=(),
        sample_answers=(),
    )


def comparison(**rows: Measured) -> Comparison:
    return Comparison(
        task="t",
        kind="generation",
        primary="number",
        higher_is_better=True,
        success_rule="number ≥ 1",
        model="m",
        device="cpu",
        budget_seconds=1.0,
        clock="wall",
        seed=0,
        train_rows=1,
        dev_rows=1,
        reference=None,
        price=None,
        machine="none",
        versions={},
        created=datetime(2026, 1, 1, tzinfo=UTC),
        samples=(),
        rows=tuple(ContenderRow(contender=name, strategy=True, measured=row) for name, row in rows.items()),
    )


def points(picture: str) -> dict[str, tuple[float, float]]:
    """Where each contender's point lies."""
    found = {}
    for circle in ElementTree.fromstring(picture).iter("circle"):
        name = (circle[0].text or "").partition(":")[0]
        found[name] = (float(circle.attrib["cx"]), float(circle.attrib["cy"]))
    return found


def test_dearer_lies_to_the_right_and_better_above() -> None:
    given = comparison(cheap=measured(0.2, 1.0), dear=measured(0.8, 5.0), never=measured(0.0, None))
    picture = scatter(
        given, "cost", lambda row: row.machine_seconds_per_success, str, up_title="success", up_of=lambda row: row.success_rate
    )
    placed = points(picture)
    assert set(placed) == {"cheap", "dear"}, "what never succeeds has no cost per success"
    assert placed["cheap"][0] < placed["dear"][0]
    assert placed["dear"][1] < placed["cheap"][1] < HEIGHT
    assert "success against cost" in picture


def test_costs_far_apart_are_drawn_by_their_logarithm() -> None:
    given = comparison(a=measured(0.2, 0.01), b=measured(0.3, 1.0), c=measured(0.4, 100.0))
    placed = points(scatter(given, "cost", lambda row: row.machine_seconds_per_success, str))
    first, second, third = (placed[name][0] for name in "abc")
    assert second - first == pytest.approx(third - second, abs=0.2)


def test_a_scale_has_round_ticks() -> None:
    assert Scale(low=0, high=1, start=0, end=100).ticks() == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1.0])
    wide = Scale(low=0.005, high=2e3, start=0, end=100, logarithmic=True)
    assert all(0.005 <= tick <= 2e3 for tick in wide.ticks()) and 2 <= len(wide.ticks()) <= 6
    assert (wide(0.005), wide(2e3)) == (0, pytest.approx(100))


def test_nothing_to_draw_is_said() -> None:
    assert "Nothing" in bars(comparison()) and "Nothing" in scatter(comparison(), "cost", lambda row: 1.0, str)
    assert "Nothing" in scatter(comparison(never=measured(0.0, None)), "cost", lambda row: row.machine_seconds_per_success, str)
    assert len(re.findall("<rect", bars(comparison(a=measured(0.5, 1.0), b=measured(0.1, 1.0))))) == 2
