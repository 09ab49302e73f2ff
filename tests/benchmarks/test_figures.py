"""The README's table of figures: a row for what was measured, none for what was not."""

from __future__ import annotations

import json

import pytest
from benchmarks import figures


@pytest.fixture
def results(tmp_path, monkeypatch):
    monkeypatch.setattr(figures, "RESULTS", tmp_path)
    return tmp_path


def test_nothing_measured_is_a_table_without_rows(results):
    assert figures.table().splitlines() == ["| figure | value | made by |", "| --- | --- | --- |"]


def test_every_result_file_gets_its_rows(results):
    speed = {"speed_ratio": 3.14159, "speed_ratio_range": [2, 4.5], "memory_ratio": 0.25, "loss_difference": -0.0312}
    (results / "tuning.json").write_text(
        json.dumps(
            {
                "speed-e2e-bfloat16": speed,
                "hate_seeds": {"0": 0.81, "1": 0.7},
                "hate_seeds_at_least_78": 1,
                "low_data": {"50": {"prefix": {"mean": 0.5, "seeds": [0.4, 0.6]}, "finetune": {"mean": 0.25, "seeds": [0.25]}}},
            }
        )
    )
    (results / "personalize.json").write_text(json.dumps({"together_over_one_by_one": 2.5, "loss_gap": 0.001}))
    gains = {
        "compact-10x": {"gain": 0.8, "prefills": 20},
        "kvzip-10x": {"gain": 0.6, "prefills": 2},
        "compact-20x": {"gain": 0.7, "prefills": 20},
    }
    compiled = {
        "ttft_ratio": 31.2,
        "ttft_ratio_range": [30, 33],
        "ttft_seconds": {"read": 2.5, "compiled": 0.08},
        "gains": gains,
        "documents": [{}, {}],
    }
    (results / "compiling.json").write_text(json.dumps(compiled))
    text = figures.table()
    assert "31× sooner (30–33; 0.080 s and 2.50 s)" in text
    assert "in 10 times fewer positions: gain (1 the text, 0 none) | compact 0.80, kvzip 0.60 (documents: 2) |" in text
    assert "3.14× its examples/s (turns 2.00–4.50), 0.25× its peak memory, dev loss -0.031" in text
    assert "0.700, 0.810 (1 of 2 at .78 or above)" in text
    assert "mean macro-F1 of 1 seeds | prefix 0.500, finetune 0.250" in text
    assert "2.5× as fast; dev loss +0.001" in text
    assert "vLLM" not in text


def test_the_committed_results_make_a_table():
    assert "tweets" in figures.table()
