"""`foreword demo`: the whole job in small, on a model that has the room and not the wits."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from foreword.cli.demo import example_folder
from foreword.prefix.store import PrefixStore


@pytest.mark.slow
def test_the_demo_runs_from_tuning_to_the_report(foreword: Any, tiny_model_folder: Any, home: Path):
    model = tiny_model_folder("llama", max_position_embeddings=8192)
    result = foreword("demo", "--model", model, "--budget", "3s", "--limit", 2)
    assert result.exit_code == 0, result.output
    for text in ("330 messages to learn from, 92 to judge on", "1. Tuning a prefix (3 s)", "2. Comparing it", "on 2 other messages"):
        assert text in result.stderr
    assert "3. Serving it on http://127.0.0.1:" in result.stderr and f"`{model.name}:support`" in result.stderr
    assert "completion tokens" in result.stderr and "foreword serve" in result.stderr
    assert "foreword generate" in result.stderr and "--prefix support" in result.stderr
    for name in ("zero-shot", "few-shot:8", "prefix:support", "wanted"):
        assert name in result.stdout
    assert f"Wrote {home / 'demo/support.html'}" in result.stderr and (home / "demo/support.html").is_file()
    header = PrefixStore(home / "prefixes").header("support@v1")
    assert header.licence == "CC0-1.0" and header.instruction is not None


def test_the_example_is_found_in_the_checkout(repository: Path):
    assert example_folder() == repository / "examples/support"


def test_an_installed_package_says_where_the_example_is(repository: Path, tmp_path: Path):
    import os
    import subprocess
    import sys

    installed = tmp_path / "lib" / "python" / "site"
    shutil.copytree(repository / "src/foreword", installed / "foreword", ignore=shutil.ignore_patterns("__pycache__"))
    environment = os.environ | {"PYTHONPATH": str(installed), "FOREWORD_HOME": str(tmp_path / "home")}
    command = [sys.executable, "-m", "foreword", "demo"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 2
    assert "are in Foreword's source checkout" in done.stderr and "make demo" in done.stderr
