"""Where a model computes, and in which numbers."""

from __future__ import annotations

import os

import torch

from foreword.errors import ModelError

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def device_of(name: str) -> torch.device:
    """The device called `name`; `auto` is CUDA where there is one.

    Raises:
        ModelError: it cannot be used here.
    """
    try:
        device = torch.device(_best_device() if name == "auto" else name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ModelError(f"The device {name!r} cannot be used here: {str(error).splitlines()[0]} Try `auto` or `cpu`.") from error
    return device


def dtype_of(name: str, device: torch.device) -> torch.dtype:
    """The dtype called `name`; `auto` is bfloat16 where the device multiplies it, else float32.

    Raises:
        ModelError: there is no such dtype.
    """
    if name == "auto":
        fast_bf16 = torch.cuda.is_bf16_supported() if device.type == "cuda" else torch.cpu._is_avx512_bf16_supported()
        return torch.bfloat16 if fast_bf16 else torch.float32
    if name not in DTYPES:
        raise ModelError(f"dtype must be `auto` or one of {', '.join(DTYPES)}; got {name!r}")
    return DTYPES[name]


def _best_device() -> str:
    """The GPU that belongs to this worker (`torchrun` numbers the workers of a machine), or the CPU."""
    return f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if torch.cuda.is_available() else "cpu"
