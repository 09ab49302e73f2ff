"""What each way to ask brings and costs: all strategies on the embedded model, on problems that it is weak at, and on one without faults.

python -m benchmarks.compare_strategies            about a quarter of an hour on two cores
python -m benchmarks.compare_strategies --quick    about 50 s: three strategies on two problems, and the scripted model

The tables are those of `foreword compare`: success with its interval, the first answer's success and that of any answer apart, calls and
tokens per problem, machine seconds per success, and how problems ended. The embedded model of 135 million parameters solves few of these
problems, so that most differences between its rows are within their intervals; the figures say what the strategies cost here, and that none
makes up for what a model cannot do. `scripted:arithmetic` shows the same machinery with a model that makes no mistake in arithmetic.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks import command

RESULT = Path(__file__).with_name("results") / "compare_strategies.json"
EMBEDDED, SCRIPTED = "smollm2", "scripted:arithmetic"
WAYS = (
    "zero-shot",
    "few-shot:4",
    "role",
    "cot",
    "self-consistency(n=5)",
    "best-of-n(n=4)",
    "plan-and-solve",
    "reflection(rounds=2)",
    "debate(debaters=2)",
    "react(steps=4)",
    "tot(width=3, beam=2, depth=2, evaluations=1, tokens=64)",
)
SEARCH = "tot(decomposition=game24, evaluations=1, at_once=1)"
SMALL_SEARCH = "tot(decomposition=game24, evaluations=1, beam=2, expansions=6, tokens=64)"
BUDGET_CALLS, SCRIPTED_CALLS = 16, 2_000
"""Calls of the model for one answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """One comparison.

    Attributes:
        name: in the result.
        task: as `foreword compare --task` takes it; `DATA` stands for the folder of evaluation data.
        tokens: of an answer at most.
    """

    name: str
    task: str
    tokens: int
    model: str = EMBEDDED
    ways: Sequence[str] = WAYS
    calls: int = BUDGET_CALLS


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How much is measured."""

    tables: Sequence[Table]


FULL = Size(
    tables=(
        Table(
            name="game24, scripted",
            task="game24:DATA/game24/dev.jsonl(rows=50)",
            tokens=200,
            model=SCRIPTED,
            ways=(*WAYS[:-1], SEARCH),
            calls=SCRIPTED_CALLS,
        ),
        Table(name="gsm8k", task="gsm8k:DATA/gsm8k(rows=10)", tokens=128),
        Table(name="chain sums", task="reasoning-gym:chain_sum(rows=16, max_terms=3, max_digits=2)", tokens=64),
        Table(name="counting legs", task="reasoning-gym:leg_counting(rows=10, max_animals=3, max_instances=3)", tokens=64),
        Table(name="game24", task="game24:DATA/game24/dev.jsonl(rows=10)", tokens=64, ways=(*WAYS[:-1], SMALL_SEARCH)),
    )
)
QUICK = Size(
    tables=(
        Table(
            name="game24, scripted",
            task="game24(rows=5)",
            tokens=200,
            model=SCRIPTED,
            ways=("zero-shot", "self-consistency(n=5)", SEARCH),
            calls=SCRIPTED_CALLS,
        ),
        Table(
            name="chain sums",
            task="reasoning-gym:chain_sum(rows=4, max_terms=3, max_digits=2)",
            tokens=32,
            ways=("zero-shot", "cot", "self-consistency(n=3)"),
        ),
    )
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, prints, and writes the full run's result; returns the exit code."""
    return command.main(
        "compare_strategies", __doc__, measure, arguments, full=FULL, quick=QUICK, less="three strategies on two problems", result=RESULT
    )


def measure(data: Path, size: Size) -> Iterator[dict[str, Any]]:
    """Every table so far, one more each time."""
    from foreword.evaluate.comparison import compare
    from foreword.evaluate.report import to_markdown
    from foreword.evaluate.task import load_task

    figures: dict[str, Any] = {}
    for table in size.tables:
        task = replace(load_task(table.task.replace("DATA", str(data))), max_new_tokens=table.tokens)
        comparison = compare(task, table.ways, model=table.model, budget_calls=table.calls)
        sys.stderr.write(f"{to_markdown(comparison)}\n")
        figures[table.name] = {
            "task": table.task.replace("DATA/", ""),
            "model": table.model,
            "rows": comparison.dev_rows,
            "ways": {row.contender: _figures(row) for row in comparison.ranked()},
        }
        yield figures | {"compare_failed": _count(figures, lambda way: "failed" in way)}


def _figures(row: Any) -> dict[str, Any]:
    if row.measured is None:
        return {"failed": row.failed}
    measured = row.measured
    return {
        "success": measured.success_rate.model_dump(),
        "first_answer": measured.first_answer.value,
        "any_of_k": measured.any_of_k.value,
        "answers": measured.asking.answers,
        "calls": measured.calls,
        "prompt_tokens": measured.prompt_tokens,
        "completion_tokens": measured.completion_tokens,
        "machine_seconds": measured.machine_seconds_per_request,
        "machine_seconds_per_success": measured.machine_seconds_per_success,
        "tokens_per_success": None if not measured.successes else measured.tokens / measured.success_rate.value,
        "latency_seconds": measured.latency_seconds,
        "ended": measured.asking.statuses,
        "reasons": measured.asking.reasons,
    }


def _count(figures: dict[str, Any], wanted: Any) -> int:
    return sum(bool(wanted(way)) for table in figures.values() for way in table["ways"].values())


if __name__ == "__main__":
    sys.exit(main())
