"""`foreword serve --gate`: from a detector in the store to the header of an answer, with the embedded embedder."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import httpx2
import pytest
import torch

from foreword.compiling import gate
from foreword.prefix.artifact import Prefix
from foreword.prefix.header import Fingerprint, Geometry
from foreword.prefix.store import PrefixStore

PATIENCE = 60.0
TEXT = "The Skylark grinds coffee. Its burrs are made of steel and have to be cleaned every week. The motor has a guarantee of two years."
QUERIES = [
    f"{start} {thing}?" for start in ("How do I clean", "What are", "Who mends") for thing in ("the burrs", "the motor", "my Skylark")
]


@pytest.mark.skipif(find_spec("wordllama") is None, reason="the extra `retrieval` is not installed")
def test_the_gate_is_asked_only_where_it_is_turned_on(tmp_path: Path):
    numbers_LHND = torch.zeros(1, 1, 3, 4)
    prefix = Prefix.make(
        name="grinder",
        kind="text",
        key_LHND=numbers_LHND,
        value_LHND=numbers_LHND,
        fingerprint=Fingerprint(architecture="A", config="0" * 64, weights="0" * 64, tokenizer="0" * 64, chat_template="0" * 64),
        geometry=Geometry(layers=1, kv_heads=1, head_dim=4, rotary=()),
        prompt_format="full",
    )
    found = gate.detector_for_queries(TEXT, QUERIES, level=0.1)
    PrefixStore(tmp_path / "prefixes").publish(gate.attach(prefix, found))
    told = {}
    for options in (("--gate",), ()):
        words = [sys.executable, "-m", "foreword", "serve", "--engine", "echo", "--port", "0", *options]
        environment = {**os.environ, "FOREWORD_HOME": str(tmp_path)}
        with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment) as process:
            try:
                assert process.stdout is not None
                url = process.stdout.readline().split()[-1]
                for content in ("How do I clean the steel burrs?", "Tell me a joke about ducks."):
                    body = {"model": "smollm2:grinder", "messages": [{"role": "user", "content": content}]}
                    answer = httpx2.post(f"{url}/v1/chat/completions", json=body, timeout=PATIENCE, trust_env=False)
                    told[options, content[:4]] = answer.headers.get("foreword-prefix")
            finally:
                process.kill()
    assert told == {(("--gate",), "How "): "attached", (("--gate",), "Tell"): "kept-off", ((), "How "): None, ((), "Tell"): None}


def test_without_the_extra_it_says_what_to_install(foreword: Any, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "wordllama", None)
    result = foreword("serve", "--gate", "--model", "/never/loaded")
    assert result.exit_code != 0 and "pip install 'foreword[retrieval]'" in " ".join(result.output.split())


def test_vllm_asks_no_detectors(foreword: Any):
    result = foreword("serve", "--engine", "vllm", "--gate")
    assert result.exit_code == 2 and "--gate" in result.output
