"""What a decomposition is: how a problem is cut into thoughts. Concrete ones live in `decompositions/`; the file name is the key.

Tree of thoughts (Yao et al. 2023, section 3) leaves to the problem what a thought is, how one is asked for and judged, and when a path is
at its end. A decomposition module holds just that, as plain functions over `State`, and asks nothing itself:

    begin(question) -> State                         raises `StrategyError` where the question is none of its business
    propose(state, count) -> str                     the prompt for several next thoughts at once
    sample(state) -> str                             the prompt for one
    read(state, text, count) -> list[State]          the states that an answer to either leads to; what cannot be read is left out
    judge(state) -> str                              the prompt for a value; it is read with `read_value`
    vote(states) -> str                              the prompt for a choice among several; it is read with `read_vote`
    finished(state) -> bool                          whether a path is at its end
    answer(state) -> str | None                      the whole answer, where the thoughts spell one out
    close(state) -> str                              the prompt for the answer, where they do not
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Protocol, cast

from foreword import registry

FOLDER = "foreword.prompting.decompositions"
WEIGHTS = {"sure": 20.0, "likely": 1.0, "impossible": 0.001}
"""What a judgement counts (the authors' code for Game of 24)."""
MOST_THOUGHT = 2_000
"""Characters of one thought; what is more is cut."""
_JUDGEMENT = re.compile(r"\b(sure|likely|impossible)\b", re.IGNORECASE)
_BEST = re.compile(r"\bbest\b[^0-9\n]*([0-9]{1,4})", re.IGNORECASE | re.ASCII)
_WHOLE = re.compile(r"\b[0-9]{1,4}\b", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """A question and the thoughts so far.

    Attributes:
        key: equal for states from which the same can be reached; such states are judged and gone on from once.
        title: how the beginning reads in a picture, where that is not the question.
    """

    question: str
    thoughts: tuple[str, ...] = ()
    key: tuple[Hashable, ...] = ()
    title: str = ""

    def __str__(self) -> str:
        return self.thoughts[-1] if self.thoughts else self.title or self.question


class Decomposition(Protocol):
    """What a module in `decompositions/` offers; the head of this file says what each part is for."""

    def begin(self, question: str) -> State: ...

    def propose(self, state: State, count: int) -> str: ...

    def sample(self, state: State) -> str: ...

    def read(self, state: State, text: str, count: int) -> list[State]: ...

    def judge(self, state: State) -> str: ...

    def vote(self, states: Sequence[State]) -> str: ...

    def finished(self, state: State) -> bool: ...

    def answer(self, state: State) -> str | None: ...

    def close(self, state: State) -> str: ...


def names() -> tuple[str, ...]:
    """The keys of all decompositions."""
    return registry.names(FOLDER)


def get(name: str) -> Decomposition:
    """The decomposition called `name`. Raises `RegistryError`."""
    return cast(Decomposition, registry.find(FOLDER, name))


def read_value(text: str) -> float | None:
    """What a judgement counts: that of the last of the words `sure`, `likely` and `impossible`; None where there is none."""
    found = _JUDGEMENT.findall(text)
    return WEIGHTS[found[-1].lower()] if found else None


def read_vote(text: str, count: int) -> int | None:
    """Which of `count` choices, counted from 0, a vote is for: the number after the last `Best`, else the last number at all; None where
    that is none of them."""
    found = _BEST.findall(text) or _WHOLE.findall(text)
    chosen = int(found[-1]) - 1 if found else -1
    return chosen if 0 <= chosen < count else None


def numbered(texts: Sequence[str]) -> str:
    """A list to choose from, one line each."""
    return "\n".join(f"{number}. {text}" for number, text in enumerate(texts, start=1))
