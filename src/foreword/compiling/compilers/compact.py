"""`compact`: a text in fewer positions than it has tokens, fitted to the model's own use of it; nothing is trained through the model.

A text that does not fit the window is compacted in parts of equal length, which are then composed; the parts do not see each other.
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

HONOURS = frozenset({"chat", "positions", "ratio", "select", "questions", "tail", "seed"})


def compile_source(
    engine: CompilingEngine,
    text: str,
    *,
    name: str,
    settings: CompileSettings = CompileSettings(),  # noqa: B008 (frozen)
    observer: Observer = Silent(),  # noqa: B008 (stateless)
    folder: Path | None = None,
) -> Prefix:
    """`text` in as many positions as the settings say, a tenth by default; see `compiler.Compiler` for errors."""
    plan = assembly.plan(engine, text, name=name, compiler="compact", kind="compacted", settings=settings, observer=observer)
    return assembly.compacted(engine, plan, settings, observer)
