"""Importing the package, its contracts, its data room or its commands loads no heavy library."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

HEAVY = {
    *("torch", "transformers", "tokenizers", "peft", "accelerate", "gguf", "datasets"),
    *("matplotlib", "sacrebleu", "rouge_score", "nltk", "scipy", "sklearn"),
}
LIGHT = (
    *("foreword", "foreword.types", "foreword.registry", "foreword.prefix.header"),
    *("foreword.engine", "foreword.data", "foreword.cost", "foreword.cli", "foreword.gateway.app"),
)

PROBE = """
import importlib, json, sys
importlib.import_module(sys.argv[1])
print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})))
"""


def loaded_after_importing(module: str) -> set[str]:
    """Top-level packages in a fresh interpreter after `import module`."""
    result = subprocess.run([sys.executable, "-c", PROBE, module], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return set(json.loads(result.stdout))


@pytest.mark.parametrize("module", LIGHT)
def test_import_is_light(module: str) -> None:
    assert sorted(loaded_after_importing(module) & HEAVY) == []


def test_the_probe_sees_a_heavy_library() -> None:
    assert "safetensors" in loaded_after_importing("safetensors")
    assert "transformers" in loaded_after_importing("transformers")
