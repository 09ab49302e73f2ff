from __future__ import annotations

from pathlib import Path

import pytest
from benchmarks.compare_strategies import FULL, QUICK, SCRIPTED, SEARCH, Size, Table, measure

from foreword.evaluate.contender import parse


@pytest.mark.parametrize("table", [*FULL.tables, *QUICK.tables], ids=lambda table: table.name)
def test_every_way_can_be_asked_for(table: Table) -> None:
    assert len({parse(way).spec for way in table.ways}) == len(table.ways)


@pytest.mark.slow
def test_a_table_says_what_was_measured_and_what_failed(tmp_path: Path) -> None:
    ways = ("zero-shot", SEARCH, "lora")
    table = Table(name="small", task="game24(rows=2, train_rows=2)", tokens=200, model=SCRIPTED, ways=ways, calls=1000)
    (figures,) = measure(tmp_path, Size(tables=(table,)))
    found = figures["small"]["ways"]
    assert found["zero-shot"]["success"]["value"] == 1 and found["zero-shot"]["calls"] == 1
    assert found[SEARCH]["calls"] > 1 and found[SEARCH]["ended"] == {"answered": 2}
    assert "only answers" in found["lora"]["failed"]
    assert figures["compare_failed"] == 1
