"""`foreword prompt fit`: a ranking of stored prompts and files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def prompts(tmp_path: Path, foreword: Any) -> list[Path]:
    """Two files, the first of them also in the store."""
    paths = []
    for name, system in (("plain", "Answer."), ("pirate", "You are a pirate and sing all day long.")):
        path = tmp_path / f"{name}.toml"
        messages = f'[[messages]]\nrole = "system"\ncontent = "{system}"\n[[messages]]\nrole = "user"\n'
        path.write_text(messages + 'content = "Q: {{ text }}"\n')
        paths.append(path)
    assert foreword("prompt", "add", paths[0]).exit_code == 0
    return paths


def test_rows_rank_by_their_answers(foreword: Any, prompts: list[Path], tiny: Path, dev: Path):
    result = foreword("prompt", "fit", "plain", prompts[1], "--inputs", dev, "--model", tiny, "--dtype", "float32", "--json")
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    assert {one["name"] for one in found} == {"plain@v1", str(prompts[1])}
    assert found[0]["output_nll"] <= found[1]["output_nll"] and len(found[0]["per_input"]) == 6


def test_lines_of_text_rank_by_themselves(foreword: Any, prompts: list[Path], tiny: Path, tmp_path: Path):
    (tmp_path / "inputs.txt").write_text("where is it\n\nwho are they\n")
    result = foreword("prompt", "fit", *prompts, "--inputs", tmp_path / "inputs.txt", "--model", tiny)
    assert result.exit_code == 0, result.stderr
    assert "On 2 inputs, the best first: by inputs" in result.stderr and str(prompts[0]) in result.stdout


def test_by_inputs_leaves_answers_out(foreword: Any, prompts: list[Path], tiny: Path, dev: Path):
    result = foreword("prompt", "fit", "plain", "--inputs", dev, "--model", tiny, "--by-inputs", "--limit", 2, "--json")
    assert json.loads(result.stdout)[0]["output_nll"] is None


def test_what_cannot_be_ranked(foreword: Any, prompts: list[Path], tiny: Path, dev: Path, tmp_path: Path):
    assert "There is no file" in foreword("prompt", "fit", "plain", "--inputs", "no.txt", "--model", tiny).stderr
    assert "No prompt is named" in foreword("prompt", "fit", "other", "--inputs", dev, "--model", tiny).stderr
    (tmp_path / "two.toml").write_text('[[messages]]\nrole = "user"\ncontent = "{{ a }} {{ b }}"\n')
    result = foreword("prompt", "fit", tmp_path / "two.toml", "--inputs", dev, "--model", tiny)
    assert result.exit_code == 2 and "no default for `a`, `b`" in result.stderr
