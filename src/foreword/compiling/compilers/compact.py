"""`compact`: a text in fewer positions than it has tokens, fitted to the model's own use of it; nothing is trained through the model.

A text that does not fit the window is compacted in parts of equal length, which are then composed; the parts do not see each other.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from foreword.compiling import compaction, source, tail
from foreword.compiling.observer import Observer, Silent
from foreword.compiling.settings import CompileSettings

if TYPE_CHECKING:
    from foreword.compiling.compiler import CompilingEngine
    from foreword.prefix.artifact import Prefix


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
    from foreword.prefix.artifact import Prefix
    from foreword.prefix.operations import compose

    token_ids = source.tokens_of(engine, text, chat=settings.chat)
    positions = compaction.wanted_positions(len(token_ids), settings)
    source.check_room(engine, positions)
    parts = compaction.split(engine, token_ids, positions, tail=settings.tail)
    if len(parts) > 1:
        observer.note(f"The text has {len(token_ids):,} tokens, more than the window takes: it is compacted in {len(parts)} parts.")
    identity: dict[str, Any] = {"name": name, "fingerprint": engine.fingerprint, "geometry": engine.geometry, "seed": settings.seed}
    identity |= {"kind": "compacted", "prompt_format": "continuation"}
    identity["recipe"] = source.recipe_of(text, compiler="compact", tokens=len(token_ids), settings=settings)
    made, tails = [], []
    for part in parts:
        reading = compaction.Reading(engine, part.token_ids, name=name, observer=observer)
        small = reading.compact(part.positions - part.tail, settings)
        (key_LHND, value_LHND), said = tail.append(
            engine, part.token_ids, (reading.whole.key_LHND, reading.whole.value_LHND), (small.key_LHND, small.value_LHND), room=part.tail
        )
        made.append(Prefix.make(key_LHND=key_LHND, value_LHND=value_LHND, **identity))
        tails.append(said)
    whole = made[0] if len(made) == 1 else compose(made, name, window=engine.window)
    text_tail = "\n".join(filter(None, tails)) or None
    return Prefix.make(key_LHND=whole.key_LHND, value_LHND=whole.value_LHND, text_tail=text_tail, **identity)
