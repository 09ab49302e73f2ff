"""`foreword tune`: publishing, resuming, starting over, and bad input."""

from __future__ import annotations

import functools
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from foreword.prefix.store import PrefixStore

QUICK = ("--positions", 4, "--initialisation", "random", "--examples-seen", 32, "--dtype", "float32")


def test_a_run_publishes_its_prefix(foreword: Any, tiny: Path, train: Path, dev: Path, home: Path):
    result = foreword("tune", "--data", train, "--dev", dev, "--name", "easy", "--model", tiny, "--licence", "CC0-1.0", *QUICK)
    assert result.exit_code == 0, result.stderr
    header = PrefixStore(home / "prefixes").header("easy@v1")
    assert (header.kind, header.positions, header.licence, header.seed) == ("learned", 4, "CC0-1.0", 0)
    assert result.stdout.startswith("easy@v1: 4 positions, ")
    assert f"dev loss    {header.quality['dev_loss']:.3f} nats per token" in result.stdout
    assert f"run folder  {home / 'runs/easy'}" in result.stdout
    assert "Try: foreword generate 'name 0' --prefix easy" in result.stderr
    assert (home / "runs/easy/easy.safetensors").read_bytes() == (home / "prefixes/easy/v0001.safetensors").read_bytes()


def test_one_json_line(foreword: Any, tiny: Path, train: Path, tmp_path: Path):
    words = ("--root", tmp_path / "store", "--run-folder", tmp_path / "run", "--json", "--price-per-hour", 3600, "--currency", "EUR")
    result = foreword("tune", "--data", train, "--name", "easy", "--model", tiny, *words, *QUICK)
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    assert found["reference"] == "easy@v1" and found["positions"] == 4 and found["stopped"] is None
    assert Path(found["path"]).stat().st_size == found["bytes"] and Path(found["run_folder"]) == tmp_path / "run"
    assert float(found["cost"]) == pytest.approx(found["seconds"], rel=0.01)
    assert "No dev data: 3 of 30 examples were set aside" in result.stderr and " EUR" in result.stderr


def test_a_start_is_looked_up_in_the_store_that_is_named(foreword: Any, tiny: Path, train: Path, tmp_path: Path):
    store, words = tmp_path / "store", ("tune", "--data", train, "--model", tiny, "--root", tmp_path / "store", *QUICK)
    assert foreword(*words, "--name", "parent").exit_code == 0
    result = foreword(*words, "--name", "child", "--initialisation", "prefix:parent@v1")
    assert result.exit_code == 0, result.stderr
    assert PrefixStore(store).header("child").parents == (PrefixStore(store).header("parent").digest,)


def test_a_finished_run_is_done_again_as_a_new_version(foreword: Any, tiny: Path, train: Path, home: Path):
    words = ("tune", "--data", train, "--name", "easy", "--model", tiny, *QUICK)
    assert foreword(*words).exit_code == 0
    other = foreword(*words, "--seed", 1)
    assert other.exit_code == 0, other.stderr
    assert other.stdout.startswith("easy@v2: ")
    store = PrefixStore(home / "prefixes")
    assert (store.header("easy@v1").seed, store.header("easy@v2").seed) == (0, 1)


def start(words: list[str], home: Path) -> subprocess.Popen[str]:
    environment = os.environ | {"FOREWORD_HOME": str(home)}
    command = [sys.executable, "-m", "foreword", *words]
    # A suite that runs in the background of a shell is told to ignore interrupts, and would hand that down.
    heed_interrupts = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, preexec_fn=heed_interrupts)


@pytest.mark.slow
def test_an_interrupted_run_is_resumed_by_the_same_command(foreword: Any, tiny: Path, train: Path, dev: Path, home: Path):
    words = ["tune", "--data", str(train), "--dev", str(dev), "--name", "easy", "--model", str(tiny), *map(str, QUICK[:4])]
    words += ["--dtype", "float32", "--examples-seen", "1600"]
    with start(words, home) as process:
        assert process.stderr is not None
        seen = 0
        for line in process.stderr:
            seen += "dev loss" in line
            if seen == 2:  # the state after the first evaluation is on disk by now
                process.send_signal(signal.SIGINT)
                break
        rest = process.stderr.read()
        assert process.wait() == 130
    assert "Interrupted. Resume with the same command." in rest and "Traceback" not in rest
    changed = foreword(*words, "--seed", 5)
    assert changed.exit_code == 2 and "differs in: settings" in changed.stderr and "--fresh" in changed.stderr
    resumed = foreword(*words)
    assert resumed.exit_code == 0, resumed.stderr
    assert f"Resuming the run in {home / 'runs/easy'}." in resumed.stderr
    again = foreword(*words, "--fresh")
    assert again.exit_code == 0 and "Resuming" not in again.stderr
    store = PrefixStore(home / "prefixes")
    assert store.header("easy@v1").digest == store.header("easy@v2").digest


def test_starting_over_removes_a_runs_own_files_only(foreword: Any, tiny: Path, train: Path, tmp_path: Path):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    (folder / "state.safetensors").write_bytes(b"junk")
    words = ("tune", "--data", train, "--name", "easy", "--model", tiny, "--run-folder", folder, *QUICK)
    broken = foreword(*words)
    assert broken.exit_code == 2 and "--fresh" in broken.stderr
    assert foreword(*words, "--fresh").exit_code == 0
    assert (folder / "notes.txt").read_text() == "mine"


def test_a_store_that_cannot_be_written_loses_nothing(foreword: Any, tiny: Path, train: Path, tmp_path: Path):
    (tmp_path / "file").write_text("in the way")
    result = foreword("tune", "--data", train, "--name", "easy", "--model", tiny, "--root", tmp_path / "file", *QUICK)
    assert result.exit_code == 2
    assert "The prefix is not lost: it is in" in result.stderr and "Cannot make" in result.stderr


def test_bad_rows_can_be_left_out(foreword: Any, tiny: Path, rows: Any):
    path = rows("bad.jsonl", [{"prompt": "a"}, *({"prompt": f"p{number}", "completion": "x"} for number in range(24))])
    words = ("tune", "--data", path, "--name", "easy", "--model", tiny, *QUICK)
    refused = foreword(*words)
    assert refused.exit_code == 2 and "line 1: missing field `completion`" in refused.stderr
    skipped = foreword(*words, "--on-bad", "skip")
    assert skipped.exit_code == 0, skipped.stderr
    assert "1 rows cannot be used and are left out (lines 1)" in skipped.stderr


def test_an_example_longer_than_the_window(foreword: Any, tiny: Path, rows: Any):
    content = [{"prompt": f"p{number}", "completion": "x"} for number in range(24)]
    path = rows("long.jsonl", [*content, {"prompt": "word " * 600, "completion": "x"}])
    words = ("tune", "--data", path, "--dev", rows("dev.jsonl", content[:6]), "--name", "easy", "--model", tiny, *QUICK)
    refused = foreword(*words)
    assert refused.exit_code == 2 and "Line 25: prompt and answer take" in refused.stderr and "--on-long skip" in refused.stderr
    assert foreword(*words, "--on-long", "skip").exit_code == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--name", "No"), "`No` cannot name a prefix"),
        (("--budget", "soon"), "'soon' is no time above zero"),
        (("--positions", "0"), "--positions"),
        (("--learning-rate", "-1"), "`learning-rate`"),
        (("--price-per-hour", "1", "--currency", "euro"), "`currency`"),
        (("--device", "toaster"), "There is no device `toaster`"),
        (("--parameterisation", "odd"), "--parameterisation"),
        (("--data", "missing.jsonl"), "There is no file `missing.jsonl`"),
        (("--dev", "missing.jsonl"), "There is no file `missing.jsonl`"),
    ],
)
def test_bad_options_end_before_the_model_is_loaded(foreword: Any, train: Path, options: tuple[str, ...], message: str):
    words = ["--data", str(train), "--name", "easy", "--model", "/never/loaded", *options]
    result = foreword("tune", *words)
    assert result.exit_code == 2
    assert message in result.stderr and result.stdout == ""


@pytest.mark.parametrize("missing", ["--data", "--name"])
def test_what_is_needed_is_named(foreword: Any, missing: str):
    words = {"--data": "x.jsonl", "--name": "easy"}
    del words[missing]
    result = foreword("tune", *(word for pair in words.items() for word in pair))
    assert result.exit_code == 2 and f"Missing option '{missing}'" in result.stderr


def test_an_unknown_initialisation(foreword: Any, tiny: Path, train: Path):
    result = foreword("tune", "--data", train, "--name", "easy", "--model", tiny, "--initialisation", "magic")
    assert result.exit_code == 2 and "No `magic` among initialisations" in result.stderr


@pytest.mark.parametrize(("content", "message"), [("", "is empty"), ('{"prompt": "a", "completion": "b"}\n', "at least 2 are needed")])
def test_too_little_data(foreword: Any, tiny: Path, tmp_path: Path, content: str, message: str):
    path = tmp_path / "few.jsonl"
    path.write_text(content)
    result = foreword("tune", "--data", path, "--name", "easy", "--model", tiny, *QUICK)
    assert result.exit_code == 2 and message in result.stderr
