from __future__ import annotations

import gzip
import json
import math
from pathlib import Path

import numpy as np
import pytest

from foreword.errors import ConfigError, DataError
from foreword.gateway.routing.table import read_table

CSV = "question,small,strong,other,cost:small,cost:strong\nWhat is 2+2?,1,true,0,0.1,2\nProve it.,0,1,1,0.2,3\nWho?,,0.5,1,0.1,2\n"


def written(folder: Path, text: str, name: str = "table.csv") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_a_csv_with_costs(tmp_path: Path):
    table = read_table(written(tmp_path, CSV), ["small", "strong"])
    assert table.questions == ("What is 2+2?", "Prove it.", "Who?")
    np.testing.assert_array_equal(table.success_NK, [[1, 1], [0, 1], [math.nan, 0.5]])
    np.testing.assert_array_equal(table.cost_NK, [[0.1, 2], [0.2, 3], [0.1, 2]])
    assert table.known().tolist() == [True, True, False]


def test_jsonl_gives_the_same_and_may_be_packed(tmp_path: Path):
    rows = [
        {"question": "What is 2+2?", "small": True, "strong": 1, "cost:small": 0.1, "cost:strong": 2},
        {"question": "Who?", "small": None, "strong": 0.5, "cost:small": "0.1", "cost:strong": "2"},
    ]
    path = tmp_path / "table.jsonl.gz"
    path.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode()))
    table = read_table(path, ["small", "strong"])
    np.testing.assert_array_equal(table.success_NK, [[1, 1], [math.nan, 0.5]])
    np.testing.assert_array_equal(table.cost_NK, [[0.1, 2], [0.1, 2]])


def test_costs_may_be_told_instead(tmp_path: Path):
    table = read_table(written(tmp_path, "question,a,b\nOne?,1,0\n"), ["b", "a"], costs=[1, 20])
    assert table.tiers == ("b", "a")
    np.testing.assert_array_equal(table.success_NK, [[0, 1]])
    np.testing.assert_array_equal(table.cost_NK, [[1, 20]])


def test_a_group_keeps_rows_on_one_side(tmp_path: Path):
    text = "question,group,a,b\n" + "".join(f"Number {number}?,{number // 2},1,0\n" for number in range(40))
    places = read_table(written(tmp_path, text), ["a", "b"], costs=[1, 2]).places()
    np.testing.assert_array_equal(places[::2], places[1::2])
    assert len(set(places)) == 20
    assert ((places >= 0) & (places < 1)).all()


def test_where_a_row_falls_does_not_hang_on_the_others(tmp_path: Path):
    both = read_table(written(tmp_path, "question,a,b\nOne?,1,0\nTwo?,1,0\n"), ["a", "b"], costs=[1, 2])
    alone = read_table(written(tmp_path, "question,a,b\nTwo?,1,0\n"), ["a", "b"], costs=[1, 2])
    assert both.places()[1] == alone.places()[0]
    assert both.digest != alone.digest


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("question,a\nOne?,1\n", "no column `b`"),
        ("question,a,b\nOne?,1,2\n", "line 2: `b` must be from 0 to 1"),
        ("question,a,b\nOne?,1,maybe\n", "'maybe'"),
        ("question,a,b\nOne?,1,-0.5\n", "from 0 to 1"),
        ("question,a,b\n ,1,0\n", "no text under `question`"),
        ("prompt,a,b\nOne?,1,0\n", "no text under `question`"),
        ("question,a,b\n", "no rows"),
        ("question,a,b\nOne?,1,0\n", "no column `cost:a`"),
        ("question,a,b,cost:a,cost:b\nOne?,1,0,-1,2\n", "`cost:a` must be a number of 0 or more"),
        ("question,a,b,cost:a,cost:b\nOne?,1,0,1,inf\n", "`cost:b` must be a number"),
        ("question,a,b,cost:a,cost:b\nOne?,1,0,,2\n", "`cost:a` must be a number"),
    ],
)
def test_what_cannot_be_used_is_told_with_its_place(tmp_path: Path, text: str, told: str):
    with pytest.raises(DataError, match=told):
        read_table(written(tmp_path, text), ["a", "b"])


@pytest.mark.parametrize(
    ("tiers", "costs", "told"),
    [
        (["a"], None, "two different models"),
        (["a", "a"], None, "two different"),
        (["a", "b"], [1.0], "one for each"),
        (["a", "b"], [1, -1], "0 or"),
    ],
)
def test_tiers_and_costs_must_fit(tmp_path: Path, tiers: list[str], costs: list[float] | None, told: str):
    with pytest.raises(ConfigError, match=told):
        read_table(written(tmp_path, "question,a,b\nOne?,1,0\n"), tiers, costs=costs)


def test_a_broken_line_is_told(tmp_path: Path):
    with pytest.raises(DataError, match="line 2"):
        read_table(written(tmp_path, '{"question": "One?", "a": 1, "b": 0}\n{"question": \n', "table.jsonl"), ["a", "b"], costs=[1, 2])
