"""The words of a text as terms that can be compared: which occur, and how alike two texts are.

Suffixes are those of English; in other languages only words of exactly the same form are found to be the same.
"""

from __future__ import annotations

import re

_SMALL = (
    "a an and any are as at be been being but by can did do does for from had has have he her his how i if in into is it its me my no nor "
    "not of off on or our out over shall she should so some such than that the their them then there these they this those to too under up "
    "us was we were what when where which who whom whose why will with would you your"
)
_ASKING = "define defined definition describe explain mean meaning means meant say term word words"
FUNCTION_WORDS = frozenset(_SMALL.split())
"""Words without a meaning of their own."""
ASKING_WORDS = frozenset(_ASKING.split())
"""Words that a question about a dictionary is made of."""

_WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")
_INFLECTIONS = (
    ("'s", ""), ("’s", ""), ("ies", "y"), ("es", ""), ("s", ""), ("ied", "y"), ("ed", ""), ("ed", "e"), ("ing", ""), ("ing", "e"),
    ("ier", "y"), ("er", ""), ("er", "e"), ("iest", "y"), ("est", ""), ("est", "e"), ("ily", "y"), ("ly", ""),
)  # fmt: skip
_LEAST_LETTERS = 2
_STEM_LETTERS = 3


def words(text: str) -> list[str]:
    """The text's words in order, in lower case."""
    return _WORD.findall(text.casefold())


def base_forms(word: str) -> tuple[str, ...]:
    """The word itself, and what it may be an inflection of: `stopped` gives `stop` too, and some that are no words."""
    found = [word]
    for suffix, instead in _INFLECTIONS:
        if word.endswith(suffix) and len(word) - len(suffix) >= _LEAST_LETTERS:
            base = word.removesuffix(suffix) + instead
            found.append(base)
            if not instead and len(base) > _LEAST_LETTERS and base[-1] == base[-2]:
                found.append(base[:-1])
    return tuple(dict.fromkeys(found))


def stem(word: str) -> str:
    """A shape that most inflections of a word share; it need not be a word."""
    if word.endswith("ies"):
        word = word[:-3] + "y"
    elif word.endswith("s") and not word.endswith(("ss", "us", "is")):
        word = word[:-1]
    for suffix in ("ing", "ed"):
        if word.endswith(suffix) and len(word) - len(suffix) >= _STEM_LETTERS:
            word = word.removesuffix(suffix)
            if word[-1] == word[-2] and word[-1] not in "lsz":
                word = word[:-1]
            break
    if len(word) > _STEM_LETTERS:
        word = word.removesuffix("e")
    return word[:-1] + "i" if len(word) > _STEM_LETTERS and word.endswith("y") else word


def terms(text: str) -> list[str]:
    """Stems of the text's words in order, words without a meaning of their own left out."""
    return [stem(word) for word in words(text) if word not in FUNCTION_WORDS]
