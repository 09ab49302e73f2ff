"""`text`: the exact keys and values that the model computes when it reads the text. Nothing is learned and nothing is lost.

A causal model's keys and values at a position depend on what stands before it alone, so a prompt that follows the prefix gets the
logits that it would get after the text itself. The prompt format is `continuation`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from foreword.compiling import source
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
    from foreword.prefix.artifact import Prefix

    token_ids = source.tokens_of(engine, text, chat=settings.chat)
    source.check_room(engine, len(token_ids))
    observer.stage(f"reading {len(token_ids):,} tokens", 1)
    key_LHND, value_LHND = engine.read(token_ids)
    observer.advance(1)
    return Prefix.make(
        name=name,
        kind="text",
        key_LHND=key_LHND,
        value_LHND=value_LHND,
        fingerprint=engine.fingerprint,
        geometry=engine.geometry,
        prompt_format="continuation",
        recipe=source.recipe_of(text, compiler="text", tokens=len(token_ids), settings=settings),
    )
