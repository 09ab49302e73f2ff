"""A dictionary's entries: read from a text, put in an order, and written as the lines that a model is to read.

Three forms are read, told apart by their first line:

    {"word": "gate", "definition": "a movable barrier", "pos": "noun"}      JSONL; `examples`, `synonyms` and `topic` may be there too
    gate<TAB>a movable barrier                                              TSV; more columns are named in a first line
    gate: a movable barrier                                                 plain lines

Axes: E entry, F term of an entry.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from foreword.compiling.terms import terms
from foreword.errors import DataError

Order = Literal["alphabetical", "topic"]

SHOWN_PROBLEMS = 5
_COLUMNS = ("word", "definition", "pos", "topic", "examples", "synonyms")
_SEVERAL = ("examples", "synonyms")
_WANTED = "Give JSONL, TSV, or lines of `word: definition`."
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0e-\x1f]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sense:
    """One meaning of a word."""

    definition: str
    pos: str | None = None
    topic: str | None = None
    examples: tuple[str, ...] = ()
    synonyms: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """As it stands in an entry."""
        also = (f"also {', '.join(self.synonyms)}",) if self.synonyms else ()
        said = "; ".join((self.definition, *also, *(f"“{example}”" for example in self.examples)))
        return f"({self.pos}) {said}" if self.pos else said


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A word and its meanings, in the order in which they were given."""

    word: str
    senses: tuple[Sense, ...]

    @property
    def meanings(self) -> str:
        """All meanings on one line."""
        if len(self.senses) == 1:
            return self.senses[0].text
        return " ".join(f"{number}. {sense.text}" for number, sense in enumerate(self.senses, start=1))

    @property
    def text(self) -> str:
        """The entry's line."""
        return f"{self.word}: {self.meanings}\n"

    @property
    def topic(self) -> str | None:
        """Of its first meaning that has one."""
        return next((sense.topic for sense in self.senses if sense.topic), None)


def parse(text: str) -> tuple[Entry, ...]:
    """The entries of a dictionary, in the order of each word's first line; several lines for one word are its meanings.

    Raises:
        DataError: the text is no text, has no entries, or has lines that are none; the message names the lines.
    """
    lines = text.removeprefix("\ufeff").split("\n")
    if binary := next((number for number, line in enumerate(lines, start=1) if _CONTROL.search(line)), None):
        raise DataError(f"The dictionary is no text: line {binary} has control characters. {_WANTED}")
    filled = [(number, line) for number, line in enumerate(lines, start=1) if line.strip()]
    if not filled:
        raise DataError(f"The dictionary has no entries: it is empty. {_WANTED}")
    read, filled = _reader(filled)
    senses: dict[str, dict[Sense, None]] = {}
    problems = []
    for number, line in filled:
        try:
            word, sense = read(line)
        except ValueError as problem:
            problems.append(f"line {number}: {problem}")
            continue
        senses.setdefault(word, {})[sense] = None
    if problems:
        more = f"; and {len(problems) - SHOWN_PROBLEMS} more" if len(problems) > SHOWN_PROBLEMS else ""
        shown = "; ".join(problems[:SHOWN_PROBLEMS])
        raise DataError(f"{len(problems)} of {len(filled)} lines of the dictionary are no entries: {shown}{more}. Mend or remove them.")
    if not senses:
        raise DataError("The dictionary has no entries: there is nothing under its first line, which names the columns.")
    return tuple(Entry(word=word, senses=tuple(found)) for word, found in senses.items())


def ordered(entries: Sequence[Entry], order: Order) -> tuple[Entry, ...]:
    """The entries in alphabetical order, or with those of one topic together; the same for the same entries, however they come.

    By topic: topics in alphabetical order, those without one last, where any entry names one. Otherwise a chain through all entries that
    always goes on to the most similar one left.
    """
    alphabetical = sorted(entries, key=lambda entry: (entry.word.casefold(), entry.word))
    if order == "alphabetical":
        return tuple(alphabetical)
    if any(entry.topic for entry in alphabetical):
        return tuple(sorted(alphabetical, key=lambda entry: (entry.topic is None, (entry.topic or "").casefold(), entry.topic or "")))
    return tuple(alphabetical[index] for index in _chain([entry.text for entry in alphabetical]))


def written(entries: Iterable[Entry]) -> str:
    """The entries as one text, a line each."""
    return "".join(entry.text for entry in entries)


# --- lines ----------------------------------------------------------------------------------------------------------


def _reader(filled: list[tuple[int, str]]) -> tuple[Callable[[str], tuple[str, Sense]], list[tuple[int, str]]]:
    """What reads a line, and the lines that it is to read."""
    first = filled[0][1].strip()
    if first.startswith("{"):
        return _from_json, filled
    if "\t" in first:
        columns = [cell.strip().casefold() for cell in first.split("\t")]
        if {"word", "definition"} <= set(columns):
            return lambda line: _from_cells(line, columns), filled[1:]
        return lambda line: _from_cells(line, list(_COLUMNS[:2])), filled
    return _from_line, filled


def _from_json(line: str) -> tuple[str, Sense]:
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"invalid JSON ({error})") from None
    if not isinstance(fields, dict):
        raise ValueError(f"a line must be one JSON object; got {type(fields).__name__}")
    return _made(fields)


def _from_cells(line: str, columns: Sequence[str]) -> tuple[str, Sense]:
    cells = [cell.strip() for cell in line.split("\t")]
    if len(cells) != len(columns):
        raise ValueError(f"{len(cells)} cells where {len(columns)} are wanted ({', '.join(columns)}); name more columns in the first line")
    fields: dict[str, object] = dict(zip(columns, cells, strict=True))
    several = {name: str(fields[name]).split("|") for name in _SEVERAL if name in fields}
    return _made(fields | several)


def _from_line(line: str) -> tuple[str, Sense]:
    word, colon, definition = line.partition(":")
    if not colon:
        raise ValueError(f"no colon after a word in {_shown(line)}")
    return _made({"word": word, "definition": definition})


def _made(fields: dict[str, object]) -> tuple[str, Sense]:
    """A word and its meaning from named fields; other fields are passed over."""
    single = {name: _text(fields.get(name), name) for name in _COLUMNS if name not in _SEVERAL}
    for name in ("word", "definition"):
        if not single[name]:
            raise ValueError(f"no {name}" + (f" for {_shown(single['word'])}" if single["word"] else ""))
    several = {name: _texts(fields.get(name), name) for name in _SEVERAL}
    sense = Sense(definition=single["definition"], pos=single["pos"] or None, topic=single["topic"] or None, **several)
    return single["word"], sense


def _text(value: object, name: str) -> str:
    if value is not None and not isinstance(value, str):
        raise ValueError(f"`{name}` must be a text; got {type(value).__name__}")
    return " ".join((value or "").split())


def _texts(value: object, name: str) -> tuple[str, ...]:
    several = value if isinstance(value, list) else [value]
    return tuple(filter(None, (_text(one, name) for one in several)))


def _shown(text: str) -> str:
    short = " ".join(text.split())
    return f"`{short[:40]}…`" if len(short) > 40 else f"`{short}`"


# --- neighbours -----------------------------------------------------------------------------------------------------


def _chain(texts: Sequence[str]) -> list[int]:
    """Indices of the texts, each followed by the one most similar to it of those left (the first of several); the first text leads.

    Similarity is the cosine of TF-IDF vectors. Only what shares a term with the last text is looked at, so that no matrix of all pairs
    is needed.
    """
    term_of = {term: number for number, term in enumerate(sorted({term for text in texts for term in terms(text)}))}
    vectors = _vectors([[term_of[term] for term in terms(text)] for text in texts], len(term_of))
    term_F, weight_F = (np.concatenate(parts) for parts in zip(*vectors, strict=True))
    entry_F = np.repeat(np.arange(len(texts)), [len(ids) for ids, _ in vectors])
    by_term_F = np.argsort(term_F, kind="stable")
    bounds = np.searchsorted(term_F[by_term_F], np.arange(len(term_of) + 1))
    left_E = np.ones(len(texts), dtype=bool)
    left_E[0] = False
    chain = [0]
    while left_E.any():
        alike_E = np.zeros(len(texts))
        for term, weight in zip(*vectors[chain[-1]], strict=True):
            holding = by_term_F[bounds[term] : bounds[term + 1]]
            alike_E[entry_F[holding]] += weight * weight_F[holding]
        # Rounded: sums of the same products in another order must not decide.
        chain.append(int(np.where(left_E, alike_E.round(9), -1.0).argmax()))
        left_E[chain[-1]] = False
    return chain


def _vectors(ids: Sequence[Sequence[int]], count: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """For each text its distinct terms and their weights, of unit length; one that is in every text weighs least, not nothing."""
    counted = [np.unique(np.array(one, dtype=np.int64), return_counts=True) for one in ids]
    frequency = np.zeros(count)
    for distinct, _ in counted:
        frequency[distinct] += 1
    rarity = np.log((1 + len(ids)) / (1 + frequency)) + 1
    found = []
    for distinct, times in counted:
        weights = times * rarity[distinct]
        norm = np.linalg.norm(weights)
        found.append((distinct, weights / norm if norm else weights))
    return found
