from __future__ import annotations

import json

import pytest

from foreword.errors import EvaluationError
from foreword.evaluate import scorer
from foreword.evaluate.measuring import JOB, Job
from foreword.evaluate.scorer import Outcome
from foreword.evaluate.task import load_task

pytest.importorskip("reasoning_gym", reason="the package reasoning-gym is not installed")


def test_entries_are_the_seeds_and_survive_a_jobs_json() -> None:
    task = load_task("reasoning-gym:chain_sum(rows=6, train_rows=4, max_terms=3, seed=2)")
    assert (task.name, len(task.dev), len(task.train)) == ("chain-sum", 6, 4)
    assert not {row.prompt for row in task.dev} & {row.prompt for row in task.train}
    job = Job(spec="cot", model="m", dtype="auto", device="cpu", task=task, budget_seconds=1.0, seed=0, clock="wall", store_root=None)
    rows = JOB.validate_json(JOB.dump_json(job)).task.dev.examples
    assert rows == task.dev.examples
    right = Outcome(
        answers=tuple(f"Let me see.\nAnswer: {row.completions[0]}" for row in rows),
        references=tuple(row.completions for row in rows),
        prompts=tuple(row.prompt for row in rows),
    )
    assert scorer.get("reasoning-gym").score(right).value == 1


def test_training_rows_show_the_answer_alone_and_dev_rows_bring_their_entry() -> None:
    task = load_task("reasoning-gym:leg_counting(rows=2, train_rows=2)")
    assert all(len(row.completions) == 1 for row in task.train)
    answer, kept = task.dev.examples[0].completions
    assert json.loads(kept)["problem"] == "leg_counting" and json.loads(kept)["entry"]["answer"] == answer


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("reasoning-gym", "needs the name of a problem"),
        ("reasoning-gym:chain", "Known problems: chain_sum"),
        ("reasoning-gym:chain_sum(terms=4)", "cannot be set so"),
        ("reasoning-gym:chain_sum(min_terms=9, max_terms=2)", "cannot be set so"),
        ("reasoning-gym:chain_sum(rows=0)", "`rows`"),
    ],
)
def test_what_cannot_be_made_is_refused(spec: str, says: str) -> None:
    with pytest.raises(EvaluationError, match=says):
        load_task(spec)
