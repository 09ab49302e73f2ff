"""How texts become words and n-grams for the scorers that define their own counting."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

NGram = tuple[str, ...]

_ENTITIES = (("&quot;", '"'), ("&amp;", "&"), ("&lt;", "<"), ("&gt;", ">"))
# ASCII punctuation but for the apostrophe, comma, hyphen and full stop, which the next three rules split by their surroundings.
_PUNCTUATION = re.compile(r"([!-&(-+/:-@\[-`{-~])")
_MARK_AFTER_NON_DIGIT = re.compile(r"([^0-9])([.,])")
_MARK_BEFORE_NON_DIGIT = re.compile(r"([.,])([^0-9])")
_HYPHEN_AFTER_DIGIT = re.compile(r"([0-9])(-)")


def words_13a(text: str) -> list[str]:
    """Words by the rules of NIST's `mteval-v13a`, the tokenisation that BLEU and NIST figures are usually reported with."""
    line = text.rstrip().replace("<skipped>", "").replace("-\n", "").replace("\n", " ")
    for entity, character in _ENTITIES:
        line = line.replace(entity, character)
    line = _PUNCTUATION.sub(r" \1 ", f" {line} ")
    line = _MARK_AFTER_NON_DIGIT.sub(r"\1 \2 ", line)
    line = _MARK_BEFORE_NON_DIGIT.sub(r" \1 \2", line)
    return _HYPHEN_AFTER_DIGIT.sub(r"\1 \2 ", line).split()


def plain_words(text: str) -> list[str]:
    """Lower-cased words without the tokens that are punctuation only, for the metrics that judge content."""
    return [word for word in words_13a(text.lower()) if any(character.isalnum() for character in word)]


def ngram_counts(words: Sequence[str], order: int) -> Counter[NGram]:
    """How often each run of `order` words occurs."""
    return Counter(tuple(words[start : start + order]) for start in range(len(words) - order + 1))
