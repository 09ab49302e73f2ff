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


WORKER = """
import os, runpy, sys, time
from pathlib import Path
from foreword.api import load
from foreword.data.reading import read
from foreword.tuning.observer import Silent
from foreword.tuning.settings import TuneSettings
from foreword.tuning.tuner import tune

model, data, out, *command = sys.argv[1:]
rank = os.environ["RANK"]


class Slow(Silent):
    # One worker sees time pass that the other does not.
    def planned(self, total_targets):
        time.sleep(0.3 * (rank == "1"))


engine = load(model, dtype="float32", device="cpu").engine
rows = read(data)
settings = TuneSettings(positions=6, budget_seconds=2.0, batch_targets=8)
result = tune(engine, rows, rows, settings, observer=Slow(), run_folder=Path(out) / f"timed-{rank}")
(Path(out) / f"timed-{rank}.txt").write_text(f"{len(result.history)} {result.prefix.header.digest}")

sys.argv = ["foreword", *command]
runpy.run_module("foreword", run_name="__main__")
"""


@pytest.fixture(scope="module")
def two_workers(texts, held_out, short, tiny_model_folder, tmp_path_factory) -> Path:
    """The folder in which torchrun's two workers ran a timed run, and then `python -m foreword tune` with the settings of `short`."""
    folder = tmp_path_factory.mktemp("workers")
    (folder / "worker.py").write_text(WORKER)
    model, train, dev = str(tiny_model_folder("llama")), folder / "train.jsonl", folder / "dev.jsonl"
    command = [
        *("tune", "--model", model, "--dtype", "float32", "--device", "cpu", "--name", "pair", "--instruction", "Say it."),
        *("--data", str(write_jsonl(texts, train)), "--dev", str(write_jsonl(held_out, dev)), "--positions", "8", "--batch", "8"),
        *("--initialisation", short.initialisation, "--learning-rate", str(short.learning_rate), "--examples-seen", "72"),
        *("--run-folder", str(folder / "run")),
    ]
    done = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"),
            *(str(folder / "worker.py"), model, str(train), str(folder), *command),
        ],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1", "FOREWORD_HOME": str(folder / "home")},
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return folder


def test_two_workers_give_the_prefix_of_one(engine, texts, held_out, short, two_workers):
    wanted = tune(engine, texts, held_out, short)
    (published,) = (two_workers / "home").rglob("*.safetensors")
    prefix = Prefix.load(published)
    torch.testing.assert_close(prefix.key_LHND, wanted.prefix.key_LHND, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(prefix.value_LHND, wanted.prefix.value_LHND, rtol=1e-3, atol=1e-3)
    log = [json.loads(line) for line in (two_workers / "run" / "log.jsonl").read_text().splitlines()]
    assert [record["loss"] for record in log] == pytest.approx([record["loss"] for record in wanted.history], rel=1e-3)
    assert [record["targets"] for record in log] == [record["targets"] for record in wanted.history]


def test_workers_agree_on_what_fits_into_a_budget(two_workers):
    assert (two_workers / "timed-0.txt").read_text() == (two_workers / "timed-1.txt").read_text()


def test_only_the_first_worker_writes(two_workers):
    assert (two_workers / "timed-0" / "done.json").is_file() and not (two_workers / "timed-1").exists()
