"""The short answer in a long one: what chain of thought, votes and scorers need of a text that also reasons."""

from __future__ import annotations

import re
from decimal import Decimal, InvalidOperation

_MARKS = (
    re.compile(r"\\boxed\{([^{}]*)\}"),
    re.compile(r"^####[ \t]*(.+)$", re.MULTILINE),
    re.compile(r"\banswer(?:[ \t]+is)?[ \t]*[:=][ \t]*\**[ \t]*(.+)", re.IGNORECASE),
    re.compile(r"\banswer is[ \t]+(.+)", re.IGNORECASE),
)
_NUMBER = re.compile(r"-?\$?\d[\d,]*(?:\.\d+)?")


def marked_answer(text: str) -> str | None:
    """What stands after the last mark of a final answer (`\\boxed{...}`, `#### ...`, `Answer: ...`, `the answer is ...`), in this order of
    preference; None where there is no mark."""
    for mark in _MARKS:
        found = mark.findall(text)
        if found:
            return found[-1].strip().rstrip(".").strip("* \t") or None
    return None


def final_answer(text: str) -> str:
    """The marked answer, or the last line that is not empty."""
    marked = marked_answer(text)
    if marked is not None:
        return marked
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""


def last_number(text: str) -> str | None:
    """The last number of a text, canonical: `$1,200.00` is `1200`. None where there is none."""
    found = _NUMBER.findall(text)
    return _canonical(found[-1]) if found else None


def vote_key(answer: str) -> str:
    """What two answers share that mean the same: numbers by value, other texts without case, outer punctuation and spacing."""
    text = " ".join(answer.split()).strip(" .,;:!?\"'*").casefold()
    if _NUMBER.fullmatch(text):
        return _canonical(text)
    return text


def _canonical(number: str) -> str:
    try:
        value = Decimal(number.replace(",", "").replace("$", ""))
    except InvalidOperation:
        return number
    return format(value.normalize(), "f") if value else "0"
