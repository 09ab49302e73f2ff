from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from foreword.errors import ModelError
from foreword.evaluate import engine_name


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("smollm2", ("transformers", "smollm2")),
        ("scripted:arithmetic", ("scripted", "arithmetic")),
        ("transformers:org/model", ("transformers", "org/model")),
        ("./odd:folder", ("transformers", "./odd:folder")),
        ("echo:", ("transformers", "echo:")),
    ],
)
def test_only_an_engines_key_before_a_colon_counts(name: str, parts: tuple[str, str]) -> None:
    assert engine_name.split(name) == parts


def test_it_loads(tiny_model_folder: Any) -> None:
    folder: Path = tiny_model_folder("llama")
    assert engine_name.load("echo:echo-1ms").name == "echo-1ms"
    assert engine_name.load(str(folder), dtype="float32", device="cpu").window > 0
    with pytest.raises(ModelError, match="no script `nonesuch`"):
        engine_name.load("scripted:nonesuch")
