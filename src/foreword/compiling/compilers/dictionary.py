"""`dictionary`: entries of a dictionary, in alphabetical order or by topic; whole, smaller, or each on its own so that some can be chosen.

Whole, the entries are one text: its exact keys and values, or, where a size is given, these in fewer positions as `compact` makes them.
Separate, every entry is read behind the same first tokens (the sink) and sees no other entry; its keys are then turned to the place that
follows the entry before it. Such a prefix may be larger than the model's window: `chosen_entries.select` takes what a request needs.

Axes: L layer, H KV head, N virtual position, D head dimension.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foreword.compiling import assembly, chosen_entries, entries, source
from foreword.compiling.observer import Observer, Silent
from foreword.compiling.settings import CompileSettings
from foreword.engine import ReadsSeveral
from foreword.errors import ConfigError, WindowError

if TYPE_CHECKING:
    from torch import Tensor

    from foreword.compiling.compiler import CompilingEngine
    from foreword.prefix.artifact import Prefix

HONOURS = frozenset({"chat", "positions", "ratio", "select", "questions", "tail", "order", "separate", "seed"})
OPENING = "Dictionary:\n\n"
"""Read before each separate entry, once in the prefix: its first token is the sink."""
GROUP_TOKENS = 2048
"""Tokens of separate entries that are read at a time."""


def compile_source(
    engine: CompilingEngine,
    text: str,
    *,
    name: str,
    settings: CompileSettings = CompileSettings(),  # noqa: B008 (frozen)
    observer: Observer = Silent(),  # noqa: B008 (stateless)
    folder: Path | None = None,
) -> Prefix:
    """The dictionary's entries as the settings say; see `compiler.Compiler` for arguments and errors.

    Raises:
        DataError: the text has no entries, or lines that are none.
    """
    found = entries.ordered(entries.parse(text), settings.order)
    if settings.separate:
        return _separate(engine, found, name=name, settings=settings, observer=observer)
    whole, about = entries.written(found), {"entry_count": len(found)}
    shared: dict[str, Any] = {"name": name, "compiler": "dictionary", "settings": settings, "observer": observer}
    if settings.positions is not None or settings.ratio is not None:
        plan = assembly.plan(engine, whole, kind="compacted", **shared)
        plan.recipe.update(about)
        return assembly.compacted(engine, plan, settings, observer)
    if settings.tail:
        raise ConfigError("A dictionary that is kept whole needs no tail. Leave `tail` out, or give `ratio` or `positions`.")
    return assembly.exact(engine, whole, about=about, **shared)


# --- each on its own ------------------------------------------------------------------------------------------------


def _separate(
    engine: CompilingEngine, found: Sequence[entries.Entry], *, name: str, settings: CompileSettings, observer: Observer
) -> Prefix:
    import torch

    from foreword.prefix.artifact import Prefix
    from foreword.prefix.rotary import rotate

    if settings.chat or settings.tail or settings.positions is not None or settings.ratio is not None:
        raise ConfigError(
            "Separate entries keep all their positions and stand as plain text. Leave `chat`, `tail`, `positions` and `ratio` out, or "
            "compile the dictionary whole."
        )
    sink_ids = source.tokens_of(engine, OPENING, chat=False)
    entry_ids = [engine.encode(entry.text) for entry in found]
    for entry, ids in zip(found, entry_ids, strict=True):
        if len(sink_ids) + len(ids) >= engine.window:
            raise WindowError(
                f"The entry `{entry.word[:40]}` has {len(ids):,} tokens; the window of `{engine.name}` is {engine.window:,}. Shorten it."
            )
    sink = engine.read(sink_ids)
    observer.stage(f"reading {len(found):,} entries, {sum(map(len, entry_ids)):,} tokens", len(found))
    keys, values = [sink[0]], [sink[1]]
    places: list[chosen_entries.Place] = []
    end = len(sink_ids)
    for group in _groups(entry_ids):
        made = _read(engine, [entry_ids[index] for index in group], sink)
        offsets = []
        for index in group:
            size = len(entry_ids[index])
            known = chosen_entries.checksums(f"{found[index].word} {found[index].meanings}")
            places.append(chosen_entries.Place(word=found[index].word, start=end, end=end + size, terms=known))
            offsets += [end - len(sink_ids)] * size
            end += size
        keys.append(rotate(torch.cat([key for key, _ in made], dim=2), engine.geometry, torch.tensor(offsets)[None, None]))
        values.append(torch.cat([value for _, value in made], dim=2))
        observer.advance(len(group))
    if end >= engine.window:
        observer.note(
            f"The dictionary takes {end:,} positions, more than the window of `{engine.name}` ({engine.window:,}): it can serve by chosen "
            "entries alone."
        )
    recipe = source.recipe_of(entries.written(found), compiler="dictionary", tokens=end, settings=settings)
    return Prefix.make(
        name=name,
        kind="composed",
        key_LHND=torch.cat(keys, dim=2),
        value_LHND=torch.cat(values, dim=2),
        fingerprint=engine.fingerprint,
        geometry=engine.geometry,
        prompt_format="continuation",
        sink=len(sink_ids),
        recipe=recipe | {"entry_count": len(found), "entries": [place.as_json() for place in places]},
    )


def _groups(entry_ids: Sequence[Sequence[int]]) -> Iterator[list[int]]:
    """Indices in order, in groups whose size with padding stays within `GROUP_TOKENS`; a single entry may exceed it."""
    group: list[int] = []
    longest = 0
    for index, ids in enumerate(entry_ids):
        longest = max(longest, len(ids))
        if group and longest * (len(group) + 1) > GROUP_TOKENS:
            yield group
            group, longest = [], len(ids)
        group.append(index)
    yield group


def _read(engine: CompilingEngine, several: Sequence[Sequence[int]], sink: tuple[Tensor, Tensor]) -> list[tuple[Tensor, Tensor]]:
    if isinstance(engine, ReadsSeveral):
        return engine.read_several(several, behind=sink)
    return [engine.read(ids, behind=sink) for ids in several]
