"""What a run keeps, whole or not at all."""

from __future__ import annotations

import json

import pytest
import torch

from foreword.errors import TuningError
from foreword.tuning.run_folder import CONFIG, CURVES, CURVES_PNG, DONE, LOG, STATE, RunFolder

CURVE = {"name": "x", "candidates": {"a": {"train": [(1, 2.0), (2, 1.0)], "dev": [(2, 1.5)]}, "b": {"train": [], "dev": []}}}


@pytest.fixture
def folder(tmp_path):
    made = RunFolder(tmp_path / "runs" / "one")
    made.begin({"seed": 1, "lists": (1, 2)})
    return made


def test_without_a_path_nothing_is_kept(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    none = RunFolder(None)
    none.begin({})
    none.save_state({"x": torch.ones(1)}, {})
    none.log([{}])
    none.finish({}, CURVE)
    assert none.load_state() is None and list(tmp_path.iterdir()) == []


def test_the_same_configuration_may_go_on(folder):
    RunFolder(folder.path).begin({"seed": 1, "lists": (1, 2)})


def test_another_configuration_is_refused_by_what_differs(folder):
    with pytest.raises(TuningError, match=r"differs in: extra, seed\. .*--fresh"):
        RunFolder(folder.path).begin({"seed": 2, "lists": [1, 2], "extra": 1})
    assert json.loads((folder.path / CONFIG).read_text())["seed"] == 1


def test_a_state_comes_back_bit_for_bit(folder):
    tensors = {"0.key": torch.randn(2, 3).T, "0.step": torch.tensor(3.0)}
    folder.save_state(tensors, {"step": 3, "infinite": float("inf")})
    found, about = folder.load_state()
    assert about == {"step": 3, "infinite": float("inf")}
    assert all(torch.equal(found[name], tensors[name]) for name in tensors) and found.keys() == tensors.keys()


def test_a_new_run_has_no_state(folder):
    assert folder.load_state() is None


@pytest.mark.parametrize("damage", [b"", b"\x00" * 40, None])
def test_a_damaged_state_says_what_to_do(folder, damage):
    folder.save_state({"x": torch.ones(100)}, {})
    file = folder.path / STATE
    file.write_bytes(file.read_bytes()[:-50] if damage is None else damage)
    with pytest.raises(TuningError, match=r"state\.safetensors cannot be read .*--fresh"):
        folder.load_state()


def test_a_damaged_configuration_says_what_to_do(folder):
    (folder.path / CONFIG).write_text("{")
    with pytest.raises(TuningError, match=r"config\.json cannot be read .*--fresh"):
        RunFolder(folder.path).begin({})


def test_what_cannot_be_written_leaves_nothing_half_written(folder):
    (folder.path / LOG / "in the way").mkdir(parents=True)
    with pytest.raises(TuningError, match=r"log\.jsonl could not be written"):
        folder.log([{"step": 1}])
    assert not list(folder.path.glob("*.part"))


def test_leftovers_of_a_killed_run_are_cleared(folder):
    (folder.path / "state.safetensors.999.part").write_bytes(b"half")
    RunFolder(folder.path).begin({"seed": 1, "lists": [1, 2]})
    assert not list(folder.path.glob("*.part"))


def test_a_finished_run_keeps_its_curves_and_drops_its_state(folder):
    folder.save_state({"x": torch.ones(1)}, {})
    folder.log([{"step": 1}, {"step": 2}])
    folder.finish({"best_step": 2}, CURVE)
    assert not (folder.path / STATE).exists()
    assert json.loads((folder.path / DONE).read_text()) == {"best_step": 2}
    assert json.loads((folder.path / CURVES).read_text())["candidates"]["a"]["dev"] == [[2, 1.5]]
    assert len((folder.path / LOG).read_text().splitlines()) == 2


def test_the_curves_are_drawn(folder):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    folder.finish({}, CURVE)
    assert (folder.path / CURVES_PNG).read_bytes().startswith(b"\x89PNG")


def test_a_finished_run_that_is_begun_again_is_not_finished(folder):
    folder.finish({}, CURVE)
    RunFolder(folder.path).begin({"seed": 1, "lists": [1, 2]})
    assert not (folder.path / DONE).exists()
