"""What tuning a prefix costs and buys, beside PEFT's prefix tuning, LoRA and full fine-tuning.

python -m benchmarks.tuning            everything, hours of one core; parts that are there already are kept
python -m benchmarks.tuning --quick    speed and memory only, about 50 s
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks import machine, result_file, shared_tasks, tuning_quality, tuning_speed, utilisation

RESULTS = Path(__file__).with_name("results")
PARTS = RESULTS / "tuning"
SPEED: dict[str, dict[str, Any]] = {"bfloat16": {"turns": 5, "steps_per_turn": 4}, "float32": {"turns": 3, "steps_per_turn": 1}}
QUICK: dict[str, Any] = {"turns": 2, "steps_per_turn": 1, "sides": ("foreword", "peft"), "dev_rows": 16}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs what was asked for; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tuning", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="speed and memory on E2E only, a few steps")
    parser.add_argument("--json", action="store_true", help="end with one line of JSON")
    parser.add_argument("--data", type=Path, default=shared_tasks.DEFAULT_DATA, help="folder of evaluation data (default: %(default)s)")
    parser.add_argument("--only", help="comma-separated names of parts, such as e2e-table,hate-seed-3,speed-e2e-bfloat16")
    parser.add_argument("--fresh", action="store_true", help="run parts again that have a result")
    parser.add_argument("--part", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if not options.data.is_dir():
        sys.stderr.write(f"There is no folder {options.data}; name the evaluation data with --data.\n")
        return 2
    if options.part:
        result_file.write(PARTS / f"{options.part}.json", _run_part(options.part, options.data))
        return 0
    if options.quick:
        speed = tuning_speed.measure(options.data, task="e2e", dtype="bfloat16", **QUICK)
        figures = {key: speed[key] for key in ("speed_ratio", "memory_ratio", "loss_difference")}
    else:
        _run_all(options.data, only=options.only.split(",") if options.only else None, fresh=options.fresh)
        figures = summary()
        result_file.write(RESULTS / "tuning.json", figures | {"machine": machine.describe()})
    result_file.show(figures, as_json=options.json)
    return 0


def _speed_parts() -> dict[str, tuple[str, str]]:
    return {f"speed-{task}-{dtype}": (task, dtype) for task, dtype in (("e2e", "bfloat16"), ("hate", "bfloat16"), ("e2e", "float32"))}


def _run_part(name: str, data: Path) -> Any:
    if name == "utilisation":
        return utilisation.measure(data)
    if name in _speed_parts():
        task, dtype = _speed_parts()[name]
        return tuning_speed.measure(data, task=task, dtype=dtype, **SPEED[dtype])
    return tuning_quality.parts()[name](data)


def _run_all(data: Path, *, only: Sequence[str] | None, fresh: bool) -> None:
    """Speed parts alone, one after the other; the others two at a time with one thread each."""
    alone = [*_speed_parts(), "utilisation"]
    wanted = [name for name in [*alone, *tuning_quality.parts()] if only is None or name in only]
    wanted = [name for name in wanted if fresh or not (PARTS / f"{name}.json").is_file()]
    for name in [name for name in wanted if name in alone]:
        _start(name, data, threads=os.cpu_count() or 1).wait()
    queue = [name for name in wanted if name not in alone]
    running: dict[str, subprocess.Popen[bytes]] = {}
    while queue or running:
        while queue and len(running) < max(1, os.cpu_count() or 1):
            name = queue.pop(0)
            running[name] = _start(name, data, threads=1)
        time.sleep(0.5)
        for name in [name for name, process in running.items() if process.poll() is not None]:
            code = running.pop(name).returncode
            sys.stderr.write(f"{name}: {'done' if code == 0 else f'failed with code {code}'}, {len(queue) + len(running)} to go\n")


def _start(name: str, data: Path, *, threads: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "benchmarks.tuning", "--part", name, "--data", str(data)]
    return subprocess.Popen(command, env=os.environ | {"OMP_NUM_THREADS": str(threads)}, stdin=subprocess.DEVNULL)


def summary() -> dict[str, Any]:
    """The figures of every part that has a result."""
    figures: dict[str, Any] = {}
    speeds = {name: result for name in _speed_parts() if (result := _result(name)) is not None}
    if "speed-hate-bfloat16" in speeds:
        figures |= {key: speeds["speed-hate-bfloat16"][key] for key in ("speed_ratio", "memory_ratio", "loss_difference")}
    for name, result in speeds.items():
        figures[name] = {key: result[key] for key in ("speed_ratio", "speed_ratio_range", "memory_ratio", "loss_difference")}
    for name in ("utilisation", "webnlg-prefix", "webnlg-finetune"):
        if (result := _result(name)) is not None:
            figures[name] = result
    for name in ("e2e-table", "hate-table", "e2e-ten-minutes", "e2e-32-positions"):
        if (result := _result(name)) is not None:
            figures[name] = {row["contender"]: _quality(row) for row in result["rows"]}
    return figures | _hate_seeds() | _low_data()


def _hate_seeds() -> dict[str, Any]:
    values = {seed: value for seed in range(tuning_quality.SEEDS) if (value := _hate_value(seed)) is not None}
    return {"hate_seeds": values, "hate_seeds_at_least_78": sum(value >= 0.78 for value in values.values())} if values else {}


def _hate_value(seed: int) -> float | None:
    result = _result(f"hate-seed-{seed}")
    return None if result is None else next(_quality(row)["value"] for row in result["rows"] if row["contender"] == "prefix")


def _low_data() -> dict[str, Any]:
    table: dict[str, Any] = {}
    for rows in tuning_quality.LOW_DATA_BUDGETS:
        found = [result for seed in range(tuning_quality.LOW_DATA_SEEDS) if (result := _result(f"low-data-{rows}-{seed}")) is not None]
        values: dict[str, list[float]] = {}
        for result in found:
            for row in result["rows"]:
                values.setdefault(row["contender"], []).append(_quality(row)["value"])
        if values:
            table[str(rows)] = {name: {"mean": fmean(several), "seeds": several} for name, several in values.items()}
    return {"low_data": table} if table else {}


def _quality(row: Mapping[str, Any]) -> dict[str, float]:
    measured = row["measured"]
    return {**measured["quality"], "training_seconds": measured["training_seconds"]}


def _result(name: str) -> Any:
    path = PARTS / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


if __name__ == "__main__":
    sys.exit(main())
