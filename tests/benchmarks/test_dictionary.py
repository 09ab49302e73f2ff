from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from benchmarks import dictionary
from benchmarks.dictionary import BIASED, Cost, Quality


def test_every_word_once_and_always_in_the_same_order(shared_data: Path) -> None:
    words = dictionary.shuffled_words(shared_data)
    assert len({word for word, _ in words}) == len(words) > 2 * max(dictionary.FULL.entries) + 500
    assert words == dictionary.shuffled_words(shared_data)
    assert all(definition and "\n" not in definition for _, definition in words)


def quality(nats: float, right: float = 1.0) -> Quality:
    return Quality(nats=np.array([nats, 3 * nats]), tokens=np.array([1, 3]), right=np.array([right, 0.0]), unrelated=nats)


def test_gain_per_unit_of_compute() -> None:
    cost = Cost(positions=10, flops=100.0, seconds=4.0)
    table = dictionary._tabled(
        {
            "none": (quality(5.0), Cost(positions=0, flops=20.0, seconds=1.0), 0.0),
            "whole, text": (quality(3.0), cost, 0.0),
            "whole, prefix": (quality(3.0), Cost(positions=10, flops=50.0, seconds=2.0), 7.0),
            "whole, wrong words": (quality(4.5), None, 0.0),
            "side signal": (quality(2.0), Cost(positions=10, flops=40.0, seconds=1.0), 7.0),
            "side signal, wrong words": (quality(4.0), None, 0.0),
            BIASED: (quality(2.5), None, 0.0),
            f"{BIASED}, wrong words": (quality(4.0), None, 0.0),
        }
    )
    side = table["side signal"]
    assert side["nats"] == {"value": 2.0, "low": 2.0, "high": 2.0}
    assert side["gain"]["value"] == pytest.approx(1.5) and side["from_entries"]["value"] == pytest.approx(2.0)
    assert side["gain_per_flop"]["value"] == pytest.approx(1.5 * 100 / 40)
    assert side["gain_per_second"]["value"] == pytest.approx(1.5 * 4)
    assert side["gain_per_flop_over_compiled"]["value"] == pytest.approx(1.5 * 50 / 40)
    assert table["whole, text"]["gain_per_flop"]["value"] == pytest.approx(1.0)
    assert table["whole, prefix"]["gain_per_second_over_compiled"]["value"] == pytest.approx(1.0)
    assert side["unrelated_perplexity_change"] == pytest.approx(2.0 / 5.0 - 1)
    assert table["none"]["gain"]["value"] == 0 and "flops" not in table[BIASED]
    assert table["none"]["reverse_accuracy"]["low"] == 0.0 and table["none"]["reverse_accuracy"]["high"] == 1.0


def test_missing_data_says_which_option_names_it(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.dictionary", "--quick", "--data", str(tmp_path / "none")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(dictionary.__file__).parents[1])
    assert done.returncode == 2
    assert "--data" in done.stderr
