from __future__ import annotations

from pathlib import Path

import pytest

from foreword.evaluate.measuring import Finding, Job
from foreword.evaluate.own_process import run_apart
from foreword.evaluate.task import Task, load_task


@pytest.fixture(scope="module")
def task() -> Task:
    return load_task("game24(rows=2, train_rows=2)")


def job(task: Task, spec: str, **fields: object) -> Job:
    settings = {"model": "scripted:arithmetic", "dtype": "auto", "device": "cpu", "budget_seconds": 1.0, "seed": 0, "clock": "wall"}
    return Job(**settings | {"spec": spec, "task": task, "store_root": None} | fields)  # type: ignore[arg-type]


@pytest.mark.slow
def test_a_finding_comes_back_with_its_stages(task: Task, tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    found = run_apart(job(task, "self-consistency(n=3)", trace_folder=tmp_path), lambda *stage: told.append(stage))
    assert isinstance(found, Finding) and found.asked is not None
    assert [row.status for row in found.asked] == ["answered", "answered"]
    assert found.prompt_tokens == tuple(row.prompt_tokens for row in found.asked)
    assert len(found.latency_seconds) == 1, "strategies are not run again for every row"
    assert found.device == "no device"
    assert ("answering", 2, 2) in told
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.slow
def test_a_reason_comes_back_where_there_is_no_finding(task: Task) -> None:
    found = run_apart(job(task, "cot", model="scripted:nonesuch"), lambda *stage: None)
    assert isinstance(found, str) and "no script `nonesuch`" in found
