"""From a text to one prefix, whole or by way of its parts: what the compilers have in common.

Axes: L layer, H KV head, N virtual position, D head dimension.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from torch import Tensor

from foreword.compiling import compaction, source, tail
from foreword.compiling.observer import Observer
from foreword.compiling.settings import CompileSettings

if TYPE_CHECKING:
    from pydantic import JsonValue

    from foreword.compiling.compiler import CompilingEngine
    from foreword.prefix.artifact import Prefix
    from foreword.prefix.header import StandsFor


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is to be made of a text.

    Attributes:
        parts: stretches of the text that fit the window, each with its positions.
        recipe: what the prefix's header says about how it was made.
    """

    name: str
    kind: Literal["compacted", "distilled"]
    parts: list[compaction.Part]
    recipe: dict[str, JsonValue]
    seed: int

    def joined(self, engine: CompilingEngine, made: Sequence[tuple[Tensor, Tensor]], tails: Sequence[str]) -> Prefix:
        """One prefix of the parts' keys and values, L H N D each, and of the text tails that stand in them."""
        from foreword.prefix.artifact import Prefix
        from foreword.prefix.operations import compose

        identity: dict[str, Any] = {"name": self.name, "kind": self.kind, "recipe": self.recipe, "seed": self.seed}
        identity |= {"fingerprint": engine.fingerprint, "geometry": engine.geometry, "prompt_format": "continuation"}
        prefixes = [Prefix.make(key_LHND=key_LHND, value_LHND=value_LHND, **identity) for key_LHND, value_LHND in made]
        whole = prefixes[0] if len(prefixes) == 1 else compose(prefixes, self.name, window=engine.window)
        text_tail = "\n".join(filter(None, tails)) or None
        return Prefix.make(key_LHND=whole.key_LHND, value_LHND=whole.value_LHND, text_tail=text_tail, **identity)


def plan(
    engine: CompilingEngine,
    text: str,
    *,
    name: str,
    compiler: str,
    kind: Literal["compacted", "distilled"],
    settings: CompileSettings,
    observer: Observer,
) -> Plan:
    """How a text is divided, and into how many positions; raises as `compiler.Compiler.compile_source`."""
    token_ids = source.tokens_of(engine, text, chat=settings.chat)
    positions = compaction.wanted_positions(len(token_ids), settings)
    source.check_room(engine, positions)
    parts = compaction.split(engine, token_ids, positions, tail=settings.tail)
    if len(parts) > 1:
        observer.note(f"The text has {len(token_ids):,} tokens, more than the window takes: it is {kind} in {len(parts)} parts.")
    recipe = source.recipe_of(text, compiler=compiler, tokens=len(token_ids), settings=settings)
    return Plan(name=name, kind=kind, parts=parts, recipe=recipe, seed=settings.seed)


def exact(
    engine: CompilingEngine,
    text: str,
    *,
    name: str,
    compiler: str,
    settings: CompileSettings,
    observer: Observer,
    about: Mapping[str, JsonValue] | None = None,
) -> Prefix:
    """The exact keys and values of a text; raises as `compiler.Compiler.compile_source`.

    Args:
        about: what the recipe says besides.
    """
    token_ids = source.tokens_of(engine, text, chat=settings.chat)
    recipe = source.recipe_of(text, compiler=compiler, tokens=len(token_ids), settings=settings) | dict(about or {})
    return read(engine, token_ids, name=name, recipe=recipe, observer=observer)


def read(
    engine: CompilingEngine,
    token_ids: Sequence[int],
    *,
    name: str,
    recipe: dict[str, JsonValue],
    observer: Observer,
    stands_for: StandsFor | None = None,
) -> Prefix:
    """The exact keys and values of tokens. Raises `WindowError` where they leave no room for a request."""
    from foreword.prefix.artifact import Prefix

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
        recipe=recipe,
        stands_for=stands_for,
    )


def compacted(engine: CompilingEngine, plan: Plan, settings: CompileSettings, observer: Observer) -> Prefix:
    """A planned text in fewer positions, each part's tail behind it."""
    made, tails = [], []
    for part in plan.parts:
        reading = compaction.Reading(engine, part.token_ids, name=plan.name, observer=observer)
        small = reading.compact(part.positions - part.tail, settings)
        tensors, said = tail.append(
            engine, part.token_ids, (reading.whole.key_LHND, reading.whole.value_LHND), (small.key_LHND, small.value_LHND), room=part.tail
        )
        made.append(tensors)
        tails.append(said)
    return plan.joined(engine, made, tails)
