"""What speaks against putting prefixes side by side, found before it is done.

A prefix file holds keys and values, and of its source only a hash. So what can be known depends on what is given: headers tell of
models, formats, system messages and the same source twice; with the texts, statements can be compared; with the model, one can
measure how much of what each part says is left beside the others (`disturbance.py`).

Statements are compared as words, not understood: two sentences that speak of the same thing and give different numbers, or of which one
says "not", are reported. Paraphrases with no words in common are missed, and two rules for two cases may be reported as one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from foreword.prefix.header import PrefixHeader

SAME_TOPIC = 0.5
"""Share of the words of the shorter of two statements that the other has too, from which they are taken to speak of one thing."""
LEAST_SHARED = 2
"""Words that two statements share at least, as one may be chance; a statement that has but one word besides its value shares that."""
CONTAINED = 0.8
"""Share of the shorter text's runs of words that the longer one has too, from which it is taken to hold the shorter one."""
RUN, LEAST_RUNS = 5, 5
"""Words in a run, and runs that a text needs to be looked for in another: a single sentence may well stand in both."""
MOST_REPORTED = 20
"""Contradictions reported for each pair of parts."""

_SENTENCE = re.compile(r"(?<=[.!?;])\s+|\n+")
_VALUE = re.compile(
    r"(?<![\w.])(?P<currency>[$€£])?\s?(?P<number>\d+(?:[.,:/-]\d+)*)\s?(?P<unit>%|percent|[a-z]+)?|(?P<address>[\w.+-]+@[\w-]+(?:\.[\w-]+)+)",
    re.IGNORECASE,
)
_NOT = re.compile(r"\b(?:not|never|no|none|cannot|without|\w+n['’]t)\b", re.IGNORECASE)
_WORD = re.compile(r"[^\W\d_]{2,}")
_SMALL = frozenset(
    re.findall(
        r"\w+",
        "the an of to in on at by for with from and or is are was were be been it its this that these those as you your we our they their "
        "he she his her will shall can may must should would do does did have has had if when then than so all any each per not no "
        "never none cannot without only also after before within up about always get gets take takes make makes give gives please need",
    )
)
_UNITS = {"percent": "%", "hrs": "hour", "hr": "hour", "min": "minute", "mins": "minute"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Conflict:
    """Something that does not go together.

    Attributes:
        kind: `model`, `format`, `system message`, `same source`, `contained`, `instruction`, `value`, `negation` or `learned`.
        parts: names of the parts concerned.
        what: what differs, with both sides.
        mend: what to do about it.
    """

    kind: str
    parts: tuple[str, ...]
    what: str
    mend: str


def find(headers: Sequence[PrefixHeader], texts: Mapping[int, str] | None = None) -> list[Conflict]:
    """Everything that can be said without the model. Reaches no torch.

    Args:
        headers: of the parts, in order.
        texts: for each part (by its place in `headers`) the text it was made from, as far as it is known. Without it, the part's
            instruction and text tail are compared.
    """
    given = texts or {}
    found = [*_of_headers(headers), *_learned(headers)]
    said = [given.get(place) or "\n".join(filter(None, (header.instruction, header.text_tail))) for place, header in enumerate(headers)]
    for first, second in combinations(range(len(headers)), 2):
        names = (headers[first].name, headers[second].name)
        same = _same_source(headers[first], headers[second])
        if same is not None:
            found.append(Conflict(kind="same source", parts=names, what=same, mend=f"Leave `{names[1]}` out."))
        else:
            found += compare(names, (said[first], said[second]))
    return found


def compare(names: tuple[str, str], texts: tuple[str, str]) -> list[Conflict]:
    """How two texts contradict or repeat each other."""
    inner = _contained(*texts)
    if inner is not None:
        small, large = names[inner], names[1 - inner]
        what = f"the text of `{small}` stands in `{large}` too, or nearly so"
        return [Conflict(kind="contained", parts=names, what=what, mend=f"Leave `{small}` out, or take its text out of `{large}`.")]
    found = []
    pairs = ((one, other) for one in _statements(texts[0]) for other in _statements(texts[1]))
    for one, other in pairs:
        kind = _contradiction(one, other)
        if kind is not None and len(found) < MOST_REPORTED:
            what = f"`{names[0]}` says “{one.text}”, `{names[1]}` says “{other.text}”"
            found.append(Conflict(kind=kind, parts=names, what=what, mend="Correct one of the texts and compile it again."))
    return found


# --- headers ----------------------------------------------------------------------------------------------------------


def _of_headers(headers: Sequence[PrefixHeader]) -> Iterator[Conflict]:
    first = headers[0] if headers else None
    for header in headers[1:]:
        assert first is not None
        differing = first.fingerprint.differences(header.fingerprint) | first.geometry.differences(header.geometry)
        if differing:
            what = f"`{header.name}` was made for another model than `{first.name}`: {', '.join(differing)} differ"
            yield Conflict(kind="model", parts=(first.name, header.name), what=what, mend="Make both for one model.")
        if first.prompt_format != header.prompt_format:
            what = f"`{first.name}` has prompt format {first.prompt_format}, `{header.name}` {header.prompt_format}"
            yield Conflict(kind="format", parts=(first.name, header.name), what=what, mend="Make both with the same prompt format.")
    spoken = [header.name for header in headers if header.recipe.get("stands_as") == "system message"]
    if len(spoken) > 1:
        what = f"{len(spoken)} parts are system messages; the model knows conversations that have one"
        yield Conflict(
            kind="system message", parts=tuple(spoken), what=what, mend="Compile all but the first as plain text (without `--chat`)."
        )
    instructed = {header.instruction: header.name for header in reversed(headers) if header.instruction}
    if len(instructed) > 1:
        names = tuple(reversed(instructed.values()))
        what = f"they were made with different instructions: {'; '.join(f'“{text}”' for text in reversed(instructed))}"
        yield Conflict(kind="instruction", parts=names, what=what, mend="Compose parts of one task, or tune one prefix for both.")


def _learned(headers: Sequence[PrefixHeader]) -> Iterator[Conflict]:
    learned = tuple(header.name for header in headers if header.kind == "learned")
    if len(learned) > 1:
        what = f"{len(learned)} parts were tuned, each to stand alone; side by side they can undo each other"
        yield Conflict(kind="learned", parts=learned, what=what, mend="Measure the composition on examples of each before it is used.")


def _same_source(one: PrefixHeader, other: PrefixHeader) -> str | None:
    if one.digest == other.digest:
        return "both are the same prefix"
    sources = one.recipe.get("source_sha256"), other.recipe.get("source_sha256")
    if sources[0] is not None and sources[0] == sources[1]:
        return "both were made from the same text"
    if one.digest in other.parents or other.digest in one.parents:
        whole, part = (other, one) if one.digest in other.parents else (one, other)
        return f"`{part.name}` is already part of `{whole.name}`"
    return None


# --- texts ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class _Statement:
    """A sentence: its words, the values in it by their unit, and whether it denies."""

    text: str
    words: frozenset[str]
    values: Mapping[str, frozenset[str]]
    denies: bool


def _statements(text: str) -> list[_Statement]:
    found = []
    for sentence in _SENTENCE.split(text):
        plain = " ".join(sentence.split())
        words = frozenset(_stem(word) for word in _WORD.findall(plain.lower()) if word not in _SMALL)
        values = _values(plain)
        units = {unit for unit in values if unit.isalpha()}
        if words - units:
            found.append(_Statement(text=plain[:200], words=words - units, values=values, denies=bool(_NOT.search(plain))))
    return found


def _values(sentence: str) -> dict[str, frozenset[str]]:
    """Numbers by the unit that they are in; addresses are a unit of their own."""
    found: dict[str, set[str]] = {}
    for match in _VALUE.finditer(sentence):
        if match["address"]:
            found.setdefault("address", set()).add(match["address"].lower())
            continue
        unit = match["currency"] or _stem((match["unit"] or "").lower())
        unit = _UNITS.get(unit, "" if unit in _SMALL else unit)
        found.setdefault(unit, set()).add(match["number"].replace(",", ""))
    return {unit: frozenset(values) for unit, values in found.items()}


def _contradiction(one: _Statement, other: _Statement) -> str | None:
    """`value` or `negation` where two statements speak of one thing and say different things about it."""
    shared = one.words & other.words
    shorter = min(len(one.words), len(other.words))
    if len(shared) < min(LEAST_SHARED, shorter) or len(shared) < SAME_TOPIC * shorter:
        return None
    for unit in one.values.keys() & other.values.keys():
        if one.values[unit].isdisjoint(other.values[unit]):
            return "value"
    # A denial of something else in a longer sentence is no contradiction, so nearly all words must be shared.
    if one.denies != other.denies and len(shared) >= 0.8 * max(len(one.words), len(other.words)):
        return "negation"
    return None


def _contained(first: str, second: str) -> int | None:
    """Which of two texts stands (nearly) whole in the other: 0 or 1, the shorter where both do; None where neither does."""
    runs = [_runs(text) for text in (first, second)]
    small = min((0, 1), key=lambda place: len(runs[place]))
    if len(runs[small]) < LEAST_RUNS:
        return None
    return small if len(runs[small] & runs[1 - small]) >= CONTAINED * len(runs[small]) else None


def _runs(text: str) -> set[tuple[str, ...]]:
    words = re.findall(r"\w+", text.lower())
    return {tuple(words[start : start + RUN]) for start in range(len(words) - RUN + 1)}


def _stem(word: str) -> str:
    """A word without its plural; enough to match `day` and `days`, `refund` and `refunds`."""
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word
