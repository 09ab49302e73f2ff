from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foreword.cost.prices import Price
from foreword.data.dataset import Dataset
from foreword.errors import ConfigError, RegistryError
from foreword.evaluate.asked import AskedRow
from foreword.evaluate.comparison import Comparison, Stage, _assemble, _Line, _Run, _scores, compare, holm
from foreword.evaluate.contender import parse
from foreword.evaluate.measuring import Finding
from foreword.evaluate.task import SuccessRule, Task, load_task, make_task
from foreword.telemetry.trace import read
from foreword.types import Example, Message

PLUGINS = """
import os, signal

def check(argument):
    pass

def prepare(context):
    {body}
"""


def row(number: int) -> Example:
    return Example(messages=(Message(role="user", content=f"case {number}"),), completions=(f"answer {number}",), line=number)


@pytest.fixture(scope="module")
def task() -> Task:
    return make_task(
        "cases",
        train=Dataset.of([row(number) for number in range(10)]),
        dev=Dataset.of([row(number) for number in range(10, 18)]),
        instruction="Answer.",
        scorers=["exact-match", "rouge-l"],
        primary="exact-match",
        success=SuccessRule(scorer="exact-match", at_least=1),
        max_new_tokens=4,
    )


def finding(task: Task, right: int, **fields: Any) -> Finding:
    """A contender that answers the first `right` dev rows correctly."""
    rows = task.dev.examples
    answers = tuple(example.completions[0] if index < right else "wrong" for index, example in enumerate(rows))
    values: dict[str, Any] = {
        "answers": answers,
        "label_log_probs": None,
        "prior_log_probs": None,
        "target_log_probs": None,
        "prompt_tokens": (10, 20) * (len(rows) // 2),
        "prefix_positions": 0,
        "completion_tokens": (4,) * len(rows),
        "machine_seconds": (0.5,) * len(rows),
        "latency_seconds": (3.0, 1.0, 2.0),
        "trained_parameters": 0,
        "artifact_bytes": 0,
        "training_seconds": 0.0,
        "training_memory_bytes": 5,
        "peak_memory_bytes": 9,
        "notes": (),
        "device": "cpu",
        "dtype": "float32",
        "versions": {"torch": "2"},
    }
    return Finding(**values | fields)


def assemble(task: Task, right: dict[str, int], *, failed: dict[str, str] | None = None, price: Price | None = None) -> Comparison:
    failed = failed or {}
    findings = {spec: finding(task, count) for spec, count in right.items()}
    runs = {spec: _Run(spec=spec, finding=found, scores=_scores(task, found)) for spec, found in findings.items()}
    lines = [_Line(name=spec, entry=parse(spec), model="m") for spec in (*right, *failed)]
    return _assemble(task, lines, runs, failed, budget_seconds=1.0, seed=0, clock="wall", price=price)


def row_of(comparison: Comparison, spec: str) -> Any:
    return next(row.measured for row in comparison.rows if row.contender == spec)


def test_a_row_adds_up(task: Task) -> None:
    measured = row_of(assemble(task, {"zero-shot": 2}, price=Price(machine_hour=Decimal(36))), "zero-shot")
    assert measured.quality.value == measured.success_rate.value == 0.25
    assert measured.quality.low <= 0.25 <= measured.quality.high
    assert (measured.successes, measured.prompt_tokens, measured.prompt_positions, measured.latency_seconds) == (2, 15, 15, 2.0)
    assert measured.machine_seconds_per_request == 0.5
    assert measured.machine_seconds_per_success == 2.0
    assert measured.cost_per_request == Decimal("0.005")
    assert measured.cost_per_success == Decimal("0.02"), "8 requests at 0.005 are paid for, 2 succeed"


def test_without_a_price_or_a_success_money_is_unknown(task: Task) -> None:
    assert row_of(assemble(task, {"zero-shot": 2}), "zero-shot").cost_per_success is None
    nothing = row_of(assemble(task, {"zero-shot": 0}, price=Price(machine_hour=1)), "zero-shot")
    assert (nothing.cost_per_success, nothing.machine_seconds_per_success) == (None, None)
    assert nothing.cost_per_request is not None


def test_the_first_prefix_is_the_reference_else_the_best(task: Task) -> None:
    assert assemble(task, {"zero-shot": 8, "prefix:a": 3, "prefix:b": 4}).reference == "prefix:a"
    assert assemble(task, {"zero-shot": 1, "few-shot:2": 5, "lora": 2}).reference == "few-shot:2"
    assert assemble(task, {"zero-shot": 1}, failed={"prefix": "no"}).reference == "zero-shot"
    assert assemble(task, {}, failed={"prefix": "no"}).reference is None


def test_differences_are_to_the_reference_and_paired(task: Task) -> None:
    comparison = assemble(task, {"prefix": 8, "zero-shot": 0, "lora": 8})
    assert row_of(comparison, "prefix").against_reference is None
    far, same = row_of(comparison, "zero-shot").against_reference, row_of(comparison, "lora").against_reference
    assert (far.value, far.low, far.high) == (-1, -1, -1)
    assert far.p_adjusted == pytest.approx(2 * far.p_value)
    assert far.p_adjusted < 0.05
    assert (same.value, same.p_value) == (0, 1)


def test_two_rows_prove_nothing(task: Task) -> None:
    import dataclasses

    short = dataclasses.replace(task, dev=task.dev.limit(2))
    against = row_of(assemble(short, {"prefix": 2, "zero-shot": 0}), "zero-shot").against_reference
    assert against.p_value == 0.5


def test_the_best_comes_first_and_failures_last(task: Task) -> None:
    comparison = assemble(task, {"zero-shot": 1, "lora": 7, "few-shot:2": 3}, failed={"finetune": "no memory"})
    assert [row.contender for row in comparison.ranked()] == ["lora", "few-shot:2", "zero-shot", "finetune"]
    assert [row.contender for row in comparison.rows] == ["zero-shot", "lora", "few-shot:2", "finetune"]


def test_of_equal_ones_the_cheaper_comes_first(task: Task) -> None:
    right = {"cot": 4, "zero-shot": 4, "role": 0, "debate": 0}
    seconds = {"cot": 3.0, "zero-shot": 1.0, "role": 2.0, "debate": 1.0}
    findings = {spec: finding(task, count, machine_seconds=(seconds[spec],) * 8) for spec, count in right.items()}
    runs = {spec: _Run(spec=spec, finding=found, scores=_scores(task, found)) for spec, found in findings.items()}
    lines = [_Line(name=spec, entry=parse(spec), model="m") for spec in right]
    for price in (None, Price(machine_hour=Decimal(36))):
        comparison = _assemble(task, lines, runs, {}, budget_seconds=1.0, seed=0, clock="wall", price=price)
        assert [row.contender for row in comparison.ranked()] == ["zero-shot", "cot", "role", "debate"]


def test_a_comparison_survives_json(task: Task) -> None:
    comparison = assemble(task, {"prefix": 8, "zero-shot": 0}, failed={"lora": "no"}, price=Price(machine_hour=Decimal("0.37")))
    assert Comparison.model_validate_json(comparison.model_dump_json()) == comparison


def asked(answer: str, *candidates: str, status: str = "answered", calls: int = 4) -> AskedRow:
    reason = "" if status == "answered" else f"why {status}"
    counts = {"calls": calls, "prompt_tokens": 40, "completion_tokens": 8, "seconds": 1.0, "model_seconds": 0.9}
    return AskedRow(answer=answer, candidates=candidates, status=status, reason=reason, note="", **counts)  # type: ignore[arg-type]


def test_the_first_answer_and_any_answer_are_told_apart(task: Task) -> None:
    rights = [example.completions[0] for example in task.dev.examples]
    rows = (
        asked(rights[0], rights[0], "wrong"),
        asked(rights[1], "wrong", rights[1]),
        asked("wrong", rights[2], "wrong"),
        asked("wrong", "wrong", "other", rights[3]),
        asked("wrong", "wrong", "wrong"),
        asked(rights[5], calls=1),
        asked("", status="budget", calls=9),
        asked("wrong", rights[7], status="failed"),
    )
    found = finding(task, 0, answers=tuple(row.answer for row in rows), asked=rows, prompt_tokens=(40,) * 8)
    runs = {"cot": _Run(spec="cot", finding=found, scores=_scores(task, found))}
    lines = [_Line(name="cot", entry=parse("cot"), model="m")]
    comparison = _assemble(task, lines, runs, {}, budget_seconds=1.0, seed=0, clock="wall", price=None)
    measured, asking = row_of(comparison, "cot"), row_of(comparison, "cot").asking
    assert comparison.rows[0].strategy
    assert (measured.successes, measured.success_rate.value) == (3, 3 / 8)
    assert (measured.first_answer.value, measured.any_of_k.value) == (4 / 8, 6 / 8)
    assert asking.first_answer.low < 4 / 8 < asking.first_answer.high
    assert asking.answers == pytest.approx((2 + 2 + 2 + 3 + 2 + 1 + 1 + 1) / 8)
    assert measured.calls == pytest.approx((6 * 4 + 1 + 9) / 8)
    assert asking.statuses == {"answered": 6, "budget": 1, "failed": 1}
    assert asking.reasons == {"why budget": 1, "why failed": 1}
    assert Comparison.model_validate_json(comparison.model_dump_json()) == comparison


def test_what_asks_once_has_one_answer(task: Task) -> None:
    measured = row_of(assemble(task, {"zero-shot": 2}), "zero-shot")
    assert measured.first_answer == measured.any_of_k == measured.success_rate
    assert (measured.calls, measured.asking.statuses) == (1, {"answered": 8})


@given(st.dictionaries(st.text(max_size=3), st.floats(0, 1), max_size=6))
def test_holm_only_raises_and_keeps_the_order(p_values: dict[str, float]) -> None:
    adjusted = holm(p_values)
    assert adjusted.keys() == p_values.keys()
    assert all(p_values[name] <= adjusted[name] <= 1 for name in p_values)
    by_raw = sorted(p_values, key=lambda name: p_values[name])
    assert [adjusted[name] for name in by_raw] == sorted(adjusted.values())


def test_holm_by_hand() -> None:
    assert holm({"a": 0.01, "b": 0.04, "c": 0.03}) == pytest.approx({"a": 0.03, "c": 0.06, "b": 0.06})


@pytest.mark.parametrize(
    ("fields", "error", "says"),
    [
        ({"contenders": []}, ConfigError, "nothing to compare"),
        ({"contenders": ["zero-shot", "zero-shot"]}, ConfigError, "named twice"),
        ({"contenders": ["magic"]}, RegistryError, "magic"),
        ({"contenders": ["cot", "strategy:cot"]}, ConfigError, "named twice"),
        ({"contenders": ["zero-shot"], "budget_calls": 0}, ConfigError, "budget_calls"),
        ({"contenders": ["zero-shot"], "model": []}, ConfigError, "at least one"),
        ({"contenders": ["zero-shot"], "model": ["a", "a"]}, ConfigError, "each model once"),
        ({"contenders": ["zero-shot"], "budget_seconds": 0}, ConfigError, "budget_seconds"),
        ({"contenders": ["zero-shot"], "budget_seconds": float("nan")}, ConfigError, "budget_seconds"),
    ],
)
def test_what_cannot_be_compared_is_refused_at_once(task: Task, fields: dict[str, Any], error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        compare(task, **{"model": "no-such-model"} | fields)


def write_plugins(folder: Path, bodies: dict[str, str]) -> None:
    """A distribution with contenders as entry points, as an installed plug-in has them."""
    info = folder / "rivals-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: rivals\nVersion: 1.0\n")
    lines = ["[foreword.contenders]"]
    for name, body in bodies.items():
        (folder / f"rival_{name}.py").write_text(PLUGINS.format(body=body))
        lines.append(f"{name} = rival_{name}")
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n")


@pytest.mark.slow
def test_each_runs_in_its_own_process_and_a_failure_is_a_row(
    task: Task, tiny_model_folder: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_plugins(
        tmp_path,
        {
            "killed": "os.kill(os.getpid(), signal.SIGKILL)",
            "buggy": "print('chatter'); raise ZeroDivisionError('a bug of its own')",
            "greedy": "raise MemoryError('far too much')",
        },
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    stages: list[Stage] = []
    comparison = compare(
        task,
        ["killed", "zero-shot", "buggy", "greedy", "prefix:nowhere"],
        model=str(tiny_model_folder("llama")),
        dtype="float32",
        device="cpu",
        budget_seconds=0.5,
        dev_limit=3,
        store_root=tmp_path / "store",
        on_progress=stages.append,
    )
    reasons = {row.contender: row.failed for row in comparison.rows}
    assert reasons["zero-shot"] is None
    assert "SIGKILL" in (reasons["killed"] or "") and "memory ran out" in (reasons["killed"] or "")
    assert "ZeroDivisionError: a bug of its own" in (reasons["buggy"] or "") and "exit code 1" in (reasons["buggy"] or "")
    assert (reasons["greedy"] or "").startswith("Memory ran out")
    assert "nowhere" in (reasons["prefix:nowhere"] or "")
    assert (comparison.dev_rows, len(row_of(comparison, "zero-shot").sample_answers)) == (3, 3)
    assert {stage.contender for stage in stages} == {row.contender for row in comparison.rows}
    assert Stage(contender="zero-shot", number=2, of=5, doing="answering", done=3, total=3) in stages
    assert comparison.versions["torch"]


@pytest.mark.slow
def test_strategies_on_several_models_in_one_table(tmp_path: Path) -> None:
    task = load_task("game24(rows=3, train_rows=3)")
    comparison = compare(
        task,
        ["zero-shot", "strategy:zero-shot", "self-consistency(n=3)", "lora"],
        model=["scripted:arithmetic", "echo:echo"],
        budget_calls=2,
        trace_folder=tmp_path / "traces",
        price=Price(machine_hour=Decimal(1), input_per_million=Decimal(1), output_per_million=Decimal(2)),
    )
    assert comparison.model == "scripted:arithmetic, echo:echo"
    rows = {row.contender: row for row in comparison.rows}
    assert list(rows)[:3] == [f"{spec} · scripted:arithmetic" for spec in ("zero-shot", "strategy:zero-shot", "self-consistency(n=3)")]
    assert row_of(comparison, "zero-shot · scripted:arithmetic").success_rate.value == 1
    assert row_of(comparison, "zero-shot · echo:echo").success_rate.value == 0
    assert "only answers" in (rows["lora · echo:echo"].failed or "")
    once, alike = (row_of(comparison, f"{spec} · scripted:arithmetic") for spec in ("zero-shot", "strategy:zero-shot"))
    assert (once.prompt_tokens, once.completion_tokens) == (alike.prompt_tokens, alike.completion_tokens)
    voted = row_of(comparison, "self-consistency(n=3) · scripted:arithmetic")
    assert voted.asking.statuses == {"budget": 3} and "2 calls" in next(iter(voted.asking.reasons))
    assert voted.cost_per_request > once.cost_per_request
    written = sorted(path.relative_to(tmp_path / "traces") for path in tmp_path.rglob("*.jsonl"))
    assert [str(path) for path in written if path.parts[:2] == ("echo-echo", "strategy-zero-shot")] == [
        f"echo-echo/strategy-zero-shot/{number:05d}.jsonl" for number in (1, 2, 3)
    ]
    assert read(tmp_path / "traces" / written[0]).of_kind("run")
