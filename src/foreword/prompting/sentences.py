"""A prompt's text in sentences, which can be left out one by one. What is Jinja is never cut: a sentence with a variable stays whole."""

from __future__ import annotations

import re
from collections.abc import Sequence

_JINJA = re.compile(r"\{\{.*?\}\}|\{%.*?%\}|\{#.*?#\}", re.DOTALL)
_END = re.compile(r"(?<=[.!?])[\"')\]]*\s+(?=\S)|\n\s*\n\s*|\n(?=\s*(?:[-*•]|\d+[.)])\s)|(?<=:)\n+")
_ABBREVIATED = re.compile(r"(?:\b(?:e\.g|i\.e|etc|cf|vs|Mr|Mrs|Ms|Dr|No|Fig|approx)|\b[A-Z])\.$")
_MASK = "\x00"

FILLERS = re.compile(
    r"\b(?:please|kindly|very|really|just|simply|actually|basically|carefully|always|in order|as (?:much|far) as (?:you can|possible)"
    r"|make sure (?:that )?(?:you |to )?|be sure to|note that|remember (?:that |to )?|it is important (?:that |to )?"
    r"|you (?:should|must|need to)|the following|given|provided)\b[ ,]*",
    re.IGNORECASE,
)
"""Words that an instruction can often do without."""


def split(text: str) -> list[str]:
    """The sentences of a template's text, each with the blanks after it: joined, they are the text again."""
    masked = _masked(text)
    pieces, start = [], 0
    for found in _END.finditer(masked):
        if _ABBREVIATED.search(masked[start : found.start()]) and "\n" not in found[0]:
            continue
        if found.end() > start:
            pieces.append(text[start : found.end()])
            start = found.end()
    if text[start:]:
        pieces.append(text[start:])
    return pieces


def has_jinja(sentence: str) -> bool:
    """Whether a sentence has a variable or another part of the template's language."""
    return bool(_JINJA.search(sentence))


def without(pieces: Sequence[str], index: int) -> str:
    """The text without one of its sentences; no blanks are left at its end that were not there before."""
    joined = "".join(piece for place, piece in enumerate(pieces) if place != index)
    return joined.rstrip() if index == len(pieces) - 1 and pieces[-1] == pieces[-1].rstrip() else joined


def shortened(sentence: str) -> str:
    """The sentence without words that it can do without; the same sentence where there are none, or where it has Jinja."""
    if has_jinja(sentence):
        return sentence
    core = sentence.rstrip()
    short = FILLERS.sub("", core)
    short = re.sub(r"[ \t]{2,}", " ", re.sub(r"\s*\([^()]*\)", "", short)).strip(" ,")
    short = re.sub(r"\s+([.,;:!?])", r"\1", short)
    if not re.search(r"\w{2,}.*\w{2,}", short, re.DOTALL):
        return sentence
    return short[:1].upper() + short[1:] + sentence[len(core) :] if core[:1].isupper() else short + sentence[len(core) :]


def literal_parts(text: str) -> list[tuple[bool, str]]:
    """The text in parts, each with whether it is Jinja; blocks such as conditions are one part with all that they hold."""
    parts, start = [], 0
    for begin, end in _jinja_spans(text):
        if begin > start:
            parts.append((False, text[start:begin]))
        parts.append((True, text[begin:end]))
        start = end
    if text[start:]:
        parts.append((False, text[start:]))
    return parts


def _masked(text: str) -> str:
    """The text with everything that is Jinja made of one character, so that nothing ends in it."""
    masked = text
    for begin, end in _jinja_spans(text):
        masked = masked[:begin] + _MASK * (end - begin) + masked[end:]
    return masked


def _jinja_spans(text: str) -> list[tuple[int, int]]:
    """Where Jinja stands. From the first condition or loop to the last, everything is one: they nest."""
    spans = [found.span() for found in _JINJA.finditer(text)]
    marks = [span for span in spans if text.startswith("{%", span[0])]
    if not marks:
        return spans
    whole = (marks[0][0], marks[-1][1])
    return sorted([whole, *(span for span in spans if span[1] <= whole[0] or span[0] >= whole[1])])
