"""A text as its words: what they are, which of them carry it, and where two texts say different things though they are made of like words.

Vectors of averaged words do not see a "not", nor which of two numbers stands in a question, nor who does what to whom. Words do.

The lists are English, with the negations of some other languages; a text in another language is split into words all the same.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_NEGATIONS = """
not no never none nor neither nobody nothing nowhere without cannot except unless stop avoid prevent
nicht kein keine keinen nie niemals ohne pas jamais sans aucun nunca sin ningún ninguna não sem non mai senza
"""
_QUESTIONS = "what which who whom whose how why when where is are was were can could do does did should will would"
_LINKS = """
a an the is are was were be been am do does did can could should would shall will may might i you we my your our me us one it its he she
they them his her their this that these those to of in on at for from by with and or as if so there here have has had get some any what
which who whom whose how why when where
"""
_COUNTED = "two three four five six seven eight nine ten eleven twelve"

NEGATIONS, QUESTION_WORDS, EMPTY_WORDS = (frozenset(words.split()) for words in (_NEGATIONS, _QUESTIONS, _LINKS))
_WORD = re.compile(r"\d+(?:[.,:/]\d+)*|[^\W\d_]+(?:\d+[^\W_]*)?")
_NOT = re.compile(r"n['’]t\b", re.IGNORECASE)
_OWNER = re.compile(r"['’]s\b", re.IGNORECASE)
_NUMBER_WORDS = {word: str(number) for number, word in enumerate(_COUNTED.split(), start=2)}
_BARE_NOT = {
    "dont",
    "doesnt",
    "didnt",
    "isnt",
    "arent",
    "wasnt",
    "werent",
    "wont",
    "cant",
    "couldnt",
    "shouldnt",
    "wouldnt",
    "hasnt",
    "havent",
}
_ENDINGS = ("ings", "ing", "ed", "es", "s", "ly")
_LEAST_STEM = 3
_SENTENCE_ENDS = '.?!:"“(\n'


@dataclass(frozen=True, slots=True, kw_only=True)
class Wording:
    """A text's words.

    Attributes:
        stems: every word in order, in lower case and without its ending.
        content: those that carry the text, in order.
        numbers: each number as often as it is there.
        negations: how many words turn the text round.
        names: words written as names: with a capital letter that does not come from beginning a sentence.
        first: the first word.
        question: the word that says what kind of question it is; empty where none does.
    """

    stems: tuple[str, ...]
    content: tuple[str, ...]
    numbers: tuple[str, ...]
    negations: int
    names: frozenset[str]
    first: str
    question: str


def wording(text: str) -> Wording:
    """The words of `text`."""
    plain = _OWNER.sub("", _NOT.sub(" not", text)) if "'" in text or "’" in text else text
    stems, content, numbers, names = [], [], [], []
    negations, first, question = 0, "", ""
    for match in _WORD.finditer(plain):
        written = match.group()
        word = written.lower()
        first = first or word
        if word in EMPTY_WORDS:
            stem = word
        else:
            stem = _stem(word)
            content.append(stem)
        stems.append(stem)
        if not question and word in QUESTION_WORDS:
            question = word
        negations += word in NEGATIONS or word in _BARE_NOT
        if number := _number(word):
            numbers.append(number)
        if written != word and _is_name(written, match.start(), plain):
            names.append(stem)
    return Wording(
        stems=tuple(stems),
        content=tuple(content),
        numbers=tuple(sorted(numbers)),
        negations=negations,
        names=frozenset(names),
        first=first,
        question=question,
    )


def differences(one: Wording, other: Wording) -> tuple[str, ...]:
    """Which of three things that turn a meaning round differ: `negation`, `numbers`, `names`."""
    found = []
    if one.negations % 2 != other.negations % 2:
        found.append("negation")
    if one.numbers != other.numbers:
        found.append("numbers")
    if one.names - set(other.stems) or other.names - set(one.stems):
        found.append("names")
    return tuple(found)


def _stem(word: str) -> str:
    if word.endswith(_ENDINGS):
        for ending in _ENDINGS:
            if word.endswith(ending) and len(word) - len(ending) >= _LEAST_STEM:
                return word[: -len(ending)]
    return word


def _number(word: str) -> str:
    if word[0].isdigit():
        return word.replace(",", "").rstrip(".")
    return _NUMBER_WORDS.get(word, "")


def _is_name(word: str, start: int, text: str) -> bool:
    """Of a word with a capital letter."""
    if len(word) < 2:
        return False
    if any(letter.isupper() or letter.isdigit() for letter in word[1:]):
        return True
    before = text[:start].rstrip()
    return bool(before) and before[-1] not in _SENTENCE_ENDS
