"""A run that is broken off anywhere, any number of times, gives what the unbroken one gives, bit for bit."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from foreword.errors import TuningError
from foreword.prefix.artifact import Prefix
from foreword.tuning.run_folder import CONFIG, DONE, STATE, RunFolder
from foreword.tuning.tuner import tune


class BrokenOff(BaseException):
    """Stands for a kill: no handler of the package catches it, and nothing is written after it."""


def break_off(watcher_class, at: int):
    def stop(step: int) -> None:
        if step == at:
            raise BrokenOff

    return watcher_class(stop)


@pytest.fixture(scope="module")
def unbroken(engine, labelled, contested):
    """The run of several candidates, its steps, and where its phases end."""
    return tune(engine, labelled, labelled, contested)


def assert_same_run(result, wanted, same) -> None:
    assert same(result.prefix, wanted.prefix)
    assert result.prefix.header.quality == wanted.prefix.header.quality
    kept = [[{key: value for key, value in record.items() if key != "seconds"} for record in run.history] for run in (result, wanted)]
    assert kept[0] == kept[1]
    ours, theirs = (dict(run.prefix.header.recipe) for run in (result, wanted))
    assert {**ours, "seconds": 0} == {**theirs, "seconds": 0}


@pytest.mark.parametrize("breaks", [[3], [8], [10], [14], [18], [5, 1], [5, 3, 3, 3], [9, 6, 3]])
def test_a_broken_run_goes_on(engine, labelled, contested, unbroken, watcher_class, tmp_path, same, breaks):
    for at in breaks:
        with pytest.raises(BrokenOff):
            tune(engine, labelled, labelled, contested, run_folder=tmp_path, observer=break_off(watcher_class, at))
    assert_same_run(tune(engine, labelled, labelled, contested, run_folder=tmp_path), unbroken, same)


def test_the_breaks_above_fall_into_every_phase(unbroken):
    order = [record["candidate"] for record in unbroken.history]
    assert len(order) == 18 and len(set(order[:8])) == 4 and len(set(order[8:12])) == 2 and len(set(order[12:])) == 1


@pytest.mark.parametrize("fields", [{"parameterisation": "mlp", "learning_rate": 0.01}, {"initialisation": "random", "seed": 3}])
def test_every_parameterisation_goes_on(engine, texts, held_out, short, watcher_class, tmp_path, same, fields):
    settings = short.model_copy(update=fields)
    wanted = tune(engine, texts, held_out, settings)
    with pytest.raises(BrokenOff):
        tune(engine, texts, held_out, settings, run_folder=tmp_path, observer=break_off(watcher_class, 8))
    assert_same_run(tune(engine, texts, held_out, settings, run_folder=tmp_path), wanted, same)


def test_a_run_broken_off_before_its_first_evaluation_begins_anew(engine, texts, held_out, short, watcher_class, tmp_path, same):
    with pytest.raises(BrokenOff):
        tune(engine, texts, held_out, short, run_folder=tmp_path, observer=break_off(watcher_class, 2))
    assert not (tmp_path / STATE).exists()
    assert_same_run(tune(engine, texts, held_out, short, run_folder=tmp_path), tune(engine, texts, held_out, short), same)


class Unfinished(RunFolder):
    """A run folder that is broken off between the last state and the summary."""

    def finish(self, summary, curves) -> None:
        raise BrokenOff


@pytest.mark.parametrize("fields", [{}, {"learning_rate": 20.0, "patience": 2, "examples_seen": 400, "evaluations": 50}])
def test_a_run_broken_off_after_its_last_step_only_finishes(
    engine, texts, held_out, short, watcher_class, tmp_path, same, monkeypatch, fields
):
    """Nothing is trained further, above all not by a run that had stopped early."""
    settings = short.model_copy(update=fields)
    wanted = tune(engine, texts, held_out, settings)
    with monkeypatch.context() as patch:
        patch.setattr("foreword.tuning.tuner.RunFolder", Unfinished)
        with pytest.raises(BrokenOff):
            tune(engine, texts, held_out, settings, run_folder=tmp_path)
    watcher = watcher_class()
    result = tune(engine, texts, held_out, settings, run_folder=tmp_path, observer=watcher)
    assert watcher.losses == [] and result.stopped == wanted.stopped
    assert_same_run(result, wanted, same)


def test_time_goes_on_counting(engine, texts, held_out, short, watcher_class, tmp_path):
    with pytest.raises(BrokenOff):
        tune(engine, texts, held_out, short, run_folder=tmp_path, observer=break_off(watcher_class, 8))
    _, about = RunFolder(tmp_path).load_state()
    assert tune(engine, texts, held_out, short, run_folder=tmp_path).seconds > about["seconds"] > 0


# --- other runs ------------------------------------------------------------------------------------------------


def test_a_folder_of_another_run_is_refused(engine, engine_of, texts, held_out, labelled, short, watcher_class, tmp_path, same):
    with pytest.raises(BrokenOff):
        tune(engine, texts, held_out, short, run_folder=tmp_path, observer=break_off(watcher_class, 5))
    others = {
        "settings": (engine, texts, held_out, short.model_copy(update={"seed": 1})),
        "train": (engine, texts.with_examples(texts.examples[1:]), held_out, short),
        "dev": (engine, texts, texts, short),
        "dtype": (engine_of("llama", dtype="bfloat16"), texts, held_out, short),
        "model": (engine_of("qwen3"), texts, held_out, short),
    }
    for field, (model, train, dev, settings) in others.items():
        with pytest.raises(TuningError, match=rf"holds a run that differs in: {field}\. .*--fresh"):
            tune(model, train, dev, settings, run_folder=tmp_path)
    assert_same_run(tune(engine, texts, held_out, short, run_folder=tmp_path), tune(engine, texts, held_out, short), same)


def test_a_finished_run_is_done_again(engine, texts, held_out, short, watcher_class, tmp_path, same):
    first = tune(engine, texts, held_out, short, run_folder=tmp_path)
    watcher = watcher_class(lambda step: None if (tmp_path / DONE).exists() is False else pytest.fail("not finished yet"))
    second = tune(engine, texts, held_out, short, run_folder=tmp_path, observer=watcher)
    assert same(first.prefix, second.prefix) and len(watcher.losses) == 9 and (tmp_path / DONE).is_file()


# --- kill -9 ---------------------------------------------------------------------------------------------------

KILLED = """
import json, os, signal, sys
import torch
from foreword.api import load
from foreword.data.reading import read
from foreword.tuning.observer import Silent
from foreword.tuning.settings import TuneSettings
from foreword.tuning.tuner import tune
from pathlib import Path

plan = json.loads(sys.argv[1])
torch.set_num_threads(plan["threads"])


class Killer(Silent):
    def step(self, loss, targets_done, tokens_per_second):
        Killer.steps = getattr(Killer, "steps", 0) + 1
        if Killer.steps == plan["kill_at"]:
            os.kill(os.getpid(), signal.SIGKILL)


engine = load(plan["model"], dtype="float32", device="cpu").engine
data = read(plan["data"])
tune(engine, data, data, TuneSettings(**plan["settings"]), run_folder=Path(plan["folder"]), observer=Killer())
"""


def test_kill_9_and_the_same_command_again(engine, labelled, contested, unbroken, tiny_model_folder, tmp_path, same):
    from foreword.data.fixing import write_jsonl
    from foreword.data.reading import read

    plan = {
        "threads": torch.get_num_threads(),
        "model": str(tiny_model_folder("llama")),
        "data": str(write_jsonl(labelled, tmp_path / "data.jsonl")),
        "settings": contested.model_dump(mode="json"),
        "folder": str(tmp_path / "run"),
        "kill_at": 11,
    }
    killed = subprocess.run([sys.executable, "-c", KILLED, json.dumps(plan)], env=dict(os.environ), capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    assert (tmp_path / "run" / STATE).is_file() and (tmp_path / "run" / CONFIG).is_file() and not (tmp_path / "run" / DONE).exists()
    data = read(tmp_path / "data.jsonl")
    result = tune(engine, data, data, contested, run_folder=tmp_path / "run")
    assert_same_run(result, unbroken, same)
    result.prefix.save(tmp_path / "x.safetensors")
    assert same(Prefix.load(tmp_path / "x.safetensors"), unbroken.prefix)


def test_a_state_of_half_a_file_is_refused(engine, texts, held_out, short, watcher_class, tmp_path: Path):
    with pytest.raises(BrokenOff):
        tune(engine, texts, held_out, short, run_folder=tmp_path, observer=break_off(watcher_class, 5))
    state = tmp_path / STATE
    state.write_bytes(state.read_bytes()[: state.stat().st_size // 2])
    with pytest.raises(TuningError, match="--fresh"):
        tune(engine, texts, held_out, short, run_folder=tmp_path)
