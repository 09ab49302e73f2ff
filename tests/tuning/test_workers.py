"""Data parallelism: workers started by torchrun give the prefix of one process, and only the first writes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from foreword.data.fixing import write_jsonl
from foreword.prefix.artifact import Prefix
from foreword.tuning.tuner import tune
from foreword.tuning.workers import Workers


def torchrun(*command: str, cwd: Path) -> None:
    """Two workers on this machine."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "FOREWORD_HOME": str(cwd / "home")}
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *command],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]


def test_alone_nothing_is_shared(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    workers = Workers.from_environment()
    tensor = torch.ones(2)
    workers.sum_([tensor])
    assert workers.leads and workers.share([1, 2, 3]) == [1, 2, 3]
    assert workers.sum(2.5) == 2.5 and workers.agree(7) == 7 and tensor.tolist() == [1.0, 1.0]


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_shares_are_apart_and_together_everything(count):
    items = list(range(11))
    shares = [Workers(rank=rank, count=count).share(items) for rank in range(count)]
    assert sorted(item for share in shares for item in share) == items
    assert [Workers(rank=rank, count=count).leads for rank in range(count)] == [True] + [False] * (count - 1)


def test_the_command_on_two_workers_gives_the_prefix_of_one(engine, texts, held_out, short, tiny_model_folder, tmp_path):
    wanted = tune(engine, texts, held_out, short)
    torchrun(
        *("-m", "foreword", "tune", "--model", str(tiny_model_folder("llama")), "--dtype", "float32", "--device", "cpu"),
        *("--data", str(write_jsonl(texts, tmp_path / "train.jsonl")), "--dev", str(write_jsonl(held_out, tmp_path / "dev.jsonl"))),
        *("--name", "pair", "--positions", "8", "--initialisation", short.initialisation, "--learning-rate", str(short.learning_rate)),
        *("--examples-seen", "72", "--batch", "8", "--instruction", "Say it.", "--run-folder", str(tmp_path / "run")),
        cwd=tmp_path,
    )
    (published,) = (tmp_path / "home").rglob("*.safetensors")
    prefix = Prefix.load(published)
    torch.testing.assert_close(prefix.key_LHND, wanted.prefix.key_LHND, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(prefix.value_LHND, wanted.prefix.value_LHND, rtol=1e-3, atol=1e-3)
    log = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [record["loss"] for record in log] == pytest.approx([record["loss"] for record in wanted.history], rel=1e-3)
    assert [record["targets"] for record in log] == [record["targets"] for record in wanted.history]


TIMED = """
import os, sys, time
from pathlib import Path
from foreword.api import load
from foreword.data.reading import read
from foreword.tuning.observer import Silent
from foreword.tuning.settings import TuneSettings
from foreword.tuning.tuner import tune

model, data, out = sys.argv[1:]
rank = os.environ["RANK"]


class Slow(Silent):
    # One worker sees time pass that the other does not.
    def planned(self, total_targets):
        time.sleep(0.3 * (rank == "1"))


engine = load(model, dtype="float32", device="cpu").engine
rows = read(data)
result = tune(engine, rows, rows, TuneSettings(positions=6, budget_seconds=2.0, batch_targets=8), observer=Slow(),
              run_folder=Path(out) / f"run-{rank}")
(Path(out) / f"steps-{rank}").write_text(f"{len(result.history)} {result.prefix.header.digest}")
"""


def test_workers_agree_on_what_fits_into_a_budget(texts, tiny_model_folder, tmp_path):
    (tmp_path / "timed.py").write_text(TIMED)
    data = write_jsonl(texts, tmp_path / "train.jsonl")
    torchrun(str(tmp_path / "timed.py"), str(tiny_model_folder("llama")), str(data), str(tmp_path), cwd=tmp_path)
    assert (tmp_path / "steps-0").read_text() == (tmp_path / "steps-1").read_text()
    assert (tmp_path / "run-0" / "done.json").is_file()
    assert not (tmp_path / "run-1").exists()  # only the first worker writes
