"""`text`: the exact keys and values that the model computes when it reads the text. Nothing is learned and nothing is lost.

A causal model's keys and values at a position depend on what stands before it alone, so a prompt that follows the prefix gets the
logits that it would get after the text itself. The prompt format is `continuation`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from foreword.compiling import assembly
from foreword.compiling.observer import Observer, Silent
from foreword.compiling.settings import CompileSettings

if TYPE_CHECKING:
    from foreword.compiling.compiler import CompilingEngine
    from foreword.prefix.artifact import Prefix

HONOURS = frozenset({"chat"})
"""Every token is kept, so a size cannot be chosen, and nothing is drawn."""


def compile_source(
    engine: CompilingEngine,
    text: str,
    *,
    name: str,
    settings: CompileSettings = CompileSettings(),  # noqa: B008 (frozen)
    observer: Observer = Silent(),  # noqa: B008 (stateless)
    folder: Path | None = None,
) -> Prefix:
    """The exact keys and values of `text`; see `compiler.Compiler` for arguments and errors."""
    return assembly.exact(engine, text, name=name, compiler="text", settings=settings, observer=observer)
