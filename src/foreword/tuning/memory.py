"""What to do when memory runs out."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

from foreword.errors import OutOfMemory

OUT_OF_MEMORY = ("out of memory", "allocate memory", "enough memory")
"""What a RuntimeError about memory says: CUDA and the allocators of the three systems."""


@contextlib.contextmanager
def memory_advice(also: str = "") -> Iterator[None]:
    """Turns an exhausted memory, as whichever part of torch words it, into `OutOfMemory`.

    Args:
        also: one more thing to lower, such as ` or --users-at-once`.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError | torch.OutOfMemoryError) and not any(sign in str(error).lower() for sign in OUT_OF_MEMORY):
            raise
        what = str(error).splitlines()[0].rstrip(".") if str(error) else "no more could be had"
        raise OutOfMemory(
            f"Memory ran out: {what}. Lower `--micro-tokens` (less is computed at once, same result), "
            f"turn on `--checkpointing`, or lower `--positions`{also}."
        ) from error
