"""A few entries of a dictionary for one question: taken out of a prefix whose entries were each read on their own.

The prefix's header says where each entry stands and, as checksums, which terms it has; so choosing needs neither the model nor the
dictionary's text.

Axes: L layer, H KV head, N virtual position, D head dimension, S chosen position.
"""

from __future__ import annotations

import math
import re
import zlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

from foreword.compiling.terms import ASKING_WORDS, FUNCTION_WORDS, base_forms, terms, words
from foreword.errors import ConfigError, PrefixError

if TYPE_CHECKING:
    from pydantic import JsonValue

    from foreword.prefix.artifact import Prefix

MOST_ENTRIES = 8
MOSTLY = 0.5
"""Share of an entry's terms, by rarity, from which on the question is said to hold its definition."""
LONGEST_PHRASE = 4
_QUOTED = re.compile(r"[“\"‘'`«]([^“”\"‘’`«»]{1,80}?)[”\"’'`»]")
_QUOTED_WORD, _QUOTED_INFLECTION, _DEFINITION, _WORD, _INFLECTION, _FRAME, _SIMILAR = range(7)


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """An entry in a prefix: positions `start` to `end` (excluded), and checksums of its terms."""

    word: str
    start: int
    end: int
    terms: tuple[int, ...]

    def as_json(self) -> dict[str, JsonValue]:
        """As a prefix's recipe keeps it."""
        return {"word": self.word, "start": self.start, "end": self.end, "terms": list(self.terms)}


def checksums(text: str) -> tuple[int, ...]:
    """The text's distinct terms as numbers, so that a header does not repeat the text."""
    return tuple(sorted({zlib.crc32(term.encode()) for term in terms(text)}))


def places(prefix: Prefix) -> tuple[Place, ...]:
    """The entries of a prefix, in order; none where none were chosen.

    Raises:
        PrefixError: it is no dictionary of separate entries, or its header says so in a way that cannot be.
    """
    found: Any = prefix.header.recipe.get("entries")
    if found is None:
        raise PrefixError(
            f"`{prefix.name}` has no entries to choose from. Compile a dictionary whose entries are read on their own: "
            "`--method dictionary --separate`."
        )
    try:
        read = tuple(Place(word=one["word"], start=one["start"], end=one["end"], terms=tuple(one["terms"])) for one in found)
        ends = [prefix.header.sink, *(place.end for place in read)]
        sound = all(before <= place.start < place.end for before, place in zip(ends, read, strict=False)) and ends[-1] <= prefix.positions
    except (TypeError, KeyError):
        sound, read = False, ()
    if not sound:
        raise PrefixError(f"The entries that `{prefix.name}` names do not lie within its positions; compile the dictionary again.")
    return read


def select(prefix: Prefix, question: str, *, most_entries: int = MOST_ENTRIES, positions: int | None = None) -> Prefix:
    """The prefix with the entries alone that have to do with a question, at positions that follow one another.

    First the words that stand in the question, as they are or inflected, quoted ones before others, and entries whose definition it
    holds; then entries that have terms in common with it. Entries that have none are left out, also where there is room.
    In the new prefix they stand in the dictionary's order, so that the same choice always gives the same prefix.

    Args:
        most_entries: how many at most.
        positions: in how many positions at most, the sink's counted; entries that do not fit are passed over.

    Raises:
        PrefixError: the prefix has no entries.
        ConfigError: `most_entries` is less than 1, or `positions` leave no room beside the sink.
    """
    import torch

    from foreword.prefix.artifact import Prefix
    from foreword.prefix.rotary import rotate

    sink = prefix.header.sink
    if most_entries < 1:
        raise ConfigError(f"At least one entry must be chosen; got {most_entries}.")
    if positions is not None and positions <= sink:
        raise ConfigError(f"{positions} positions leave no room for an entry beside the sink's {sink}. Allow more.")
    entries = places(prefix)
    room = prefix.positions if positions is None else positions
    chosen: list[int] = []
    taken = sink
    for index in ranked(entries, question):
        size = entries[index].end - entries[index].start
        if len(chosen) < most_entries and taken + size <= room:
            chosen.append(index)
            taken += size
    kept = [entries[index] for index in sorted(chosen)]
    index_S = torch.tensor([*range(sink), *chain.from_iterable(range(place.start, place.end) for place in kept)], dtype=torch.long)
    key_LHSD = _taken(prefix.key_LHND, prefix.key_scale_LHN, index_S)
    value_LHSD = _taken(prefix.value_LHND, prefix.value_scale_LHN, index_S)
    header = prefix.header
    back_S = torch.arange(len(index_S)) - index_S
    return Prefix.make(
        name=header.name,
        kind="composed",
        key_LHND=rotate(key_LHSD, header.geometry, back_S[None, None]),
        value_LHND=value_LHSD,
        fingerprint=header.fingerprint,
        geometry=header.geometry,
        prompt_format=header.prompt_format,
        sink=sink,
        first_position=header.first_position,
        parents=(header.digest,),
        recipe={**header.recipe, "entries": _moved(kept, sink)},
        seed=header.seed,
        licence=header.licence,
    )


def ranked(entries: Sequence[Place], question: str) -> list[int]:
    """Indices of the entries that have to do with a question, the nearest first."""
    said = _Question.of(question)
    frequency = Counter(chain.from_iterable(entry.terms for entry in entries))
    rarity = {term: math.log((1 + len(entries)) / (1 + count)) + 1 for term, count in frequency.items()}
    asked = sum(rarity[term] ** 2 for term in said.terms if term in rarity) or 1.0
    found = []
    for index, entry in enumerate(entries):
        common = said.terms.intersection(entry.terms)
        tier = said.tier(entry.word)
        if not common and tier is None:
            continue
        shared = sum(rarity[term] ** 2 for term in common)
        whole = sum(rarity[term] ** 2 for term in entry.terms) or 1.0
        if shared >= MOSTLY * whole and (tier is None or tier > _DEFINITION):
            tier = _DEFINITION
        found.append((_SIMILAR if tier is None else tier, -shared / math.sqrt(asked * whole), index))
    return [index for *_, index in sorted(found)]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Question:
    """Words, phrases and terms of a question, each in the best of the ways in which an entry's word can stand there."""

    terms: frozenset[int]
    tiers: dict[str, int]

    @classmethod
    def of(cls, question: str) -> _Question:
        said = words(question)
        quoted = [words(found) for found in _QUOTED.findall(question)]
        phrases = [said[start : start + size] for size in range(1, LONGEST_PHRASE + 1) for start in range(len(said) - size + 1)]
        tiers: dict[str, int] = {}
        for phrase, whole, inflected in (
            *((phrase, _QUOTED_WORD, _QUOTED_INFLECTION) for phrase in quoted if 0 < len(phrase) <= LONGEST_PHRASE),
            *((phrase, _FRAME, None) if _is_frame(phrase) else (phrase, _WORD, _INFLECTION) for phrase in phrases),
        ):
            for number, form in enumerate(_forms(phrase)):
                tier = whole if number == 0 else inflected
                if tier is not None:
                    tiers[form] = min(tier, tiers.get(form, tier))
        return cls(terms=frozenset(checksums(question)), tiers=tiers)

    def tier(self, word: str) -> int | None:
        """In which way an entry's word stands in the question; None where it does not."""
        plain = word.casefold()
        if plain in self.tiers:
            return self.tiers[plain]
        return None if plain.isalnum() else self.tiers.get(" ".join(words(word)))


def _is_frame(phrase: Sequence[str]) -> bool:
    return len(phrase) == 1 and (phrase[0] in FUNCTION_WORDS or phrase[0] in ASKING_WORDS)


def _forms(phrase: Sequence[str]) -> Iterable[str]:
    """The phrase as it is, then with its last word as what it may be an inflection of."""
    return (" ".join((*phrase[:-1], form)) for form in base_forms(phrase[-1]))


def _taken(tensor_LHND: Any, scale_LHN: Any, index_S: Any) -> Any:
    """The chosen positions as floating-point numbers; only they are read from a mapped file."""
    taken_LHSD = tensor_LHND.index_select(2, index_S.to(tensor_LHND.device))
    return taken_LHSD if scale_LHN is None else taken_LHSD.float() * scale_LHN.index_select(2, index_S.to(scale_LHN.device))[..., None]


def _moved(kept: Sequence[Place], start: int) -> list[JsonValue]:
    moved: list[JsonValue] = []
    for place in kept:
        end = start + place.end - place.start
        moved.append(Place(word=place.word, start=start, end=end, terms=place.terms).as_json())
        start = end
    return moved
