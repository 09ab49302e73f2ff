"""What can be seen of a question without reading it: its length, and how much of it is figures, formulas, code, capitals or listed options.

Hundreds of requests a second each have theirs counted, so a text becomes a histogram of its bytes, once, and a kind is the sum of a few
of its bins.

Axes: B byte value, M marker.
"""

from __future__ import annotations

import numpy as np

from foreword.gateway.question import excerpt

_KINDS = (
    "0123456789",
    "=+*/^<>|~%",
    "\\$",
    "{}[];",
    "()",
    "\n",
    '"',
    "'",
    "_",
    "?",
    ".:,",
    "#`@&",
    "ABCDEFGHIJKLMNOPQRSTUVWXYZ",
    " ",
)
_PHRASES = (
    "\nA",
    "\n1",
    "```",
    "def ",
    "return",
    "http",
    " not ",
    "how ",
    "why ",
    "what ",
    "who ",
    "which ",
    "if ",
    "write ",
    "____",
    "Answer:",
)

VERSION = 1
"""Routers of another version were made of other markers."""
NAMES = (
    "length",
    "word-length",
    *(f"count {kind!r}" for kind in _KINDS),
    "count of no ASCII",
    *(f"share {kind!r}" for kind in _KINDS),
    "share of no ASCII",
    *(f"phrase {phrase!r}" for phrase in _PHRASES),
)


def _bins() -> np.ndarray:
    bins_BM = np.zeros((256, len(_KINDS) + 1))
    for column, kind in enumerate(_KINDS):
        bins_BM[list(kind.encode()), column] = 1
    bins_BM[128:, -1] = 1
    return bins_BM


_BINS = _bins()
_SPACE = _KINDS.index(" ")


def markers(text: str) -> np.ndarray:
    """The markers M of a question: logarithms of counts, and shares of all bytes. Of a long text, its start and its end count."""
    seen = excerpt(text)
    counts_B = np.bincount(np.frombuffer(seen.encode("utf-8", "replace"), dtype=np.uint8), minlength=256)
    kinds_M = counts_B @ _BINS
    length = len(seen)
    found = np.zeros(len(NAMES))
    kinds = len(kinds_M)
    found[0] = len(text)
    found[2 : 2 + kinds] = kinds_M
    found[2 + 2 * kinds :] = [seen.count(phrase) for phrase in _PHRASES]
    np.log1p(found, out=found)
    found[1] = length / (1.0 + kinds_M[_SPACE]) / 10
    found[2 + kinds : 2 + 2 * kinds] = kinds_M * (50.0 / (1.0 + length))
    return found
