"""`compact`: a text in fewer positions than it has tokens, fitted to the model's own use of it; nothing is trained through the model.

A text that does not fit the window is compacted in parts of equal length, which are then composed; the parts do not see each other.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from foreword.compiling import assembly, compaction, tail
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
    made, tails = [], []
    for part in plan.parts:
        reading = compaction.Reading(engine, part.token_ids, name=name, observer=observer)
        small = reading.compact(part.positions - part.tail, settings)
        tensors, said = tail.append(
            engine, part.token_ids, (reading.whole.key_LHND, reading.whole.value_LHND), (small.key_LHND, small.value_LHND), room=part.tail
        )
        made.append(tensors)
        tails.append(said)
    return plan.joined(engine, made, tails)
