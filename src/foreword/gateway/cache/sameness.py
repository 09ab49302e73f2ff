"""Whether two answers say the same, which is what the semantic cache learns from.

Short answers (a label, a number, a name) must be equal but for case, spacing and outer punctuation. Longer ones must have the same numbers,
names and negations, and be near each other in meaning. A wrong verdict either way costs something: “not the same” makes the cache more
careful than it has to be, “the same” less, so what is in doubt is not the same.
"""

from __future__ import annotations

from foreword.gateway.cache.wording import differences, wording
from foreword.prompting.final_answer import vote_key
from foreword.retrieval.embedder import Embedder

SHORT = 8
"""Words up to which an answer must be equal."""
NEAR = 0.9
"""Cosine from which longer ones are the same."""
MOST_CHARACTERS = 4_000
COMMON = 0.2
"""Share of all their words that two answers have in common at least, which is cheap to see, and less than any two near ones have."""


def same_answer(one: str, other: str, embedder: Embedder) -> bool:
    """Whether two answers say the same."""
    if vote_key(one) == vote_key(other):
        return True
    words, others = one.lower().split(), other.lower().split()
    if min(len(words), len(others)) <= SHORT or _in_common(words, others) < COMMON or differences(wording(one), wording(other)):
        return False
    left_D, right_D = embedder.embed([one[:MOST_CHARACTERS], other[:MOST_CHARACTERS]])
    return float(left_D @ right_D) >= NEAR


def _in_common(words: list[str], others: list[str]) -> float:
    mine, theirs = set(words), set(others)
    return len(mine & theirs) / len(mine | theirs)
