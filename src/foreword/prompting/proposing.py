"""Where an optimiser's new prompts come from: moves that need no model, and a model's own rewriting of the instruction where there is one.

A small model rewrites instructions badly, so most proposals are moves whose worth can be measured: other examples in another order,
sentences left out, shortened, reworded or added, another strategy. All draws come from one seed, so that a search can be repeated.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from foreword.prompting import sentences
from foreword.prompting.candidates import EXAMPLES, INSTRUCTION, STRATEGY, Candidate, Space, chosen

Reflect = Callable[[str, Sequence[Mapping[str, Any]]], str]
"""Has a model write an instruction anew, given what went wrong."""
Records = Sequence[Mapping[str, Any]]

MOST_DRAWS = 40
REFLECTS = 0.5
"""How often an instruction is written by the model, where there is one, and not by a move."""
BEGIN_WITH = 4
"""Examples that a prompt without any begins with, where there are no labels to take one of each."""

_ADDED = (
    "Give only the answer.",
    "Answer with one of the given choices and nothing else.",
    "Read the whole text before you answer.",
    "Look at what is meant, not only at the words.",
    "If several answers seem right, give the one that fits best.",
    "Answer as in the examples.",
)
_ADDED_WITH_LABELS = ("Answer with one of: {labels}.", "The possible answers are {labels}.", "Choose among {labels}.")
_WHOLE_WITH_LABELS = (
    "Which of these fits the text best: {labels}?",
    "Label the text as {labels}.",
    "Decide whether the text is {labels}. Answer with one of them.",
)
_REWORDED = (
    (r"\bClassify\b", "Label"),
    (r"\bClassify\b", "Decide whether"),
    (r"\bDetermine\b", "Say"),
    (r"\bIdentify\b", "Name"),
    (r"\bAnswer\b", "Reply"),
    (r"\bReply\b", "Answer"),
    (r"\bthe user's\b", "the"),
    (r"\butterance\b", "request"),
    (r"\bmessage\b", "text"),
    (r"\bfollowing\b", "given"),
    (r"\bexactly one\b", "one"),
    (r"\bYou are an? [^.\n]*\.\s*", ""),
)


class Proposer:
    """Says what to try next. Meets GEPA's `ProposalFn`."""

    def __init__(self, space: Space, *, seed: int, labels: Sequence[str] = (), reflect: Reflect | None = None) -> None:
        self._space, self._labels, self._reflect = space, tuple(labels), reflect
        self._draw = random.Random(seed)
        self._seen = {_told(space.start)}

    def __call__(self, candidate: Candidate, records: Mapping[str, Records], components: Sequence[str]) -> Candidate:
        """New texts for one of the components, or for another where nothing new comes to mind for it; empty where nothing does at all."""
        wanted = list(dict.fromkeys([*components, *candidate]))
        about: Records = next(iter(records.values()), ())
        for component in wanted:
            for _ in range(MOST_DRAWS):
                text = self._text(component, candidate, about)
                proposed = {**candidate, component: text}
                if text == candidate[component] or _told(proposed) in self._seen or not self._space.allows(proposed):
                    continue
                self._seen.add(_told(proposed))
                return {component: text}
        return {}

    def _text(self, component: str, candidate: Candidate, records: Records) -> str:
        if component == STRATEGY:
            return self._draw.choice(self._space.strategies)
        if component == EXAMPLES:
            return json.dumps(self._examples(chosen(candidate), records))
        if self._reflect is not None and records and self._draw.random() < REFLECTS:
            return self._reflect(candidate[INSTRUCTION], records)
        return self._instruction(candidate[INSTRUCTION])

    # --- examples ----------------------------------------------------------------------------------------------

    def _examples(self, places: list[int], records: Records) -> list[int]:
        """Other examples, or the same in another order."""
        draw, others = self._draw, [index for index in range(len(self._space.pool)) if index not in places]
        if not places:
            return self._balanced()
        moves: list[Callable[[], list[int]]] = [lambda: self._balanced()]
        if others and len(places) < self._space.most_examples:
            moves += [lambda: _inserted(places, self._of_use(others, records), draw.randint(0, len(places)))] * 3
        if others:
            moves += [lambda: _replaced(places, draw.randrange(len(places)), self._of_use(others, records))] * 2
        if len(places) > 1:
            moves += [lambda: _swapped(places, *draw.sample(range(len(places)), 2))]
        moves += [lambda: _dropped(places, draw.randrange(len(places)))]
        return draw.choice(moves)()

    def _balanced(self) -> list[int]:
        """A fresh draw: as many of each wanted answer as there is room for, in an order of chance."""
        by_answer: dict[str, list[int]] = {}
        for index, shot in enumerate(self._space.pool):
            by_answer.setdefault(shot.assistant, []).append(index)
        most, draw = min(self._space.most_examples, len(self._space.pool)), self._draw
        if most == 0:
            return []
        if not self._labels:
            return draw.sample(range(len(self._space.pool)), draw.randint(1, min(most, BEGIN_WITH)))
        answers = list(by_answer)
        draw.shuffle(answers)
        each = draw.randint(1, max(1, most // len(answers)))
        picked = [index for answer in answers for index in draw.sample(by_answer[answer], min(each, len(by_answer[answer])))][:most]
        draw.shuffle(picked)
        return picked

    def _of_use(self, others: Sequence[int], records: Records) -> int:
        """An example of an answer that was missed, half of the time; else any."""
        missed = {wanted for record in records if not record["success"] for wanted in record["wanted"]}
        fitting = [index for index in others if self._space.pool[index].assistant in missed]
        return self._draw.choice(fitting if fitting and self._draw.random() < 0.5 else others)

    # --- the instruction ---------------------------------------------------------------------------------------

    def _instruction(self, text: str) -> str:
        """One sentence fewer, shorter, reworded, moved or more; or all of it anew."""
        pieces, draw = sentences.split(text), self._draw
        free = [place for place, piece in enumerate(pieces) if not sentences.has_jinja(piece)]
        moves: list[Callable[[], str]] = [lambda: _joined(text, self._bank(_ADDED, _ADDED_WITH_LABELS), first=draw.random() < 0.3)] * 2
        moves += [lambda: _reworded(text, draw)] * 2
        if len(free) == len(pieces):
            moves += [lambda: self._bank((), _WHOLE_WITH_LABELS)] if self._labels else []
        if free:
            moves += [lambda: sentences.without(pieces, draw.choice(free))] * (2 if len(pieces) > 1 else 1)
            moves += [lambda: _with_piece(pieces, place := draw.choice(free), sentences.shortened(pieces[place]))] * 2
        if len(free) > 1:
            moves += [lambda: _moved(pieces, *draw.sample(free, 2))]
        return draw.choice(moves)()

    def _bank(self, plain: Sequence[str], with_labels: Sequence[str]) -> str:
        bank = [*plain, *(with_labels if self._labels else ())]
        return self._draw.choice(bank).format(labels=_listed(self._labels))


def _told(candidate: Mapping[str, str]) -> str:
    return json.dumps(candidate, sort_keys=True)


def _inserted(places: Sequence[int], index: int, at: int) -> list[int]:
    return [*places[:at], index, *places[at:]]


def _replaced(places: Sequence[int], at: int, index: int) -> list[int]:
    return [*places[:at], index, *places[at + 1 :]]


def _dropped(places: Sequence[int], at: int) -> list[int]:
    return [*places[:at], *places[at + 1 :]]


def _swapped(places: Sequence[int], first: int, second: int) -> list[int]:
    changed = list(places)
    changed[first], changed[second] = changed[second], changed[first]
    return changed


def _with_piece(pieces: Sequence[str], place: int, piece: str) -> str:
    return "".join([*pieces[:place], piece, *pieces[place + 1 :]])


def _moved(pieces: Sequence[str], first: int, second: int) -> str:
    """Two sentences in each other's place; the blanks after them stay where they are."""
    changed = list(pieces)
    one, other = pieces[first], pieces[second]
    changed[first] = other.rstrip() + one[len(one.rstrip()) :]
    changed[second] = one.rstrip() + other[len(other.rstrip()) :]
    return "".join(changed)


def _joined(text: str, sentence: str, *, first: bool) -> str:
    if sentence in text:
        return text
    return f"{sentence} {text.lstrip()}".strip() if first else f"{text.rstrip()} {sentence}".strip()


def _reworded(text: str, draw: random.Random) -> str:
    """One word or phrase by another, outside of Jinja."""
    fitting = [(pattern, by) for pattern, by in _REWORDED if re.search(pattern, text)]
    if not fitting:
        return text
    pattern, by = draw.choice(fitting)
    parts = [part if is_jinja else re.sub(pattern, by, part, count=1) for is_jinja, part in sentences.literal_parts(text)]
    return "".join(parts)


def _listed(labels: Sequence[str]) -> str:
    """`a, b or c`; braces in labels stay text in a template."""
    shown = [label.replace("{", "(").replace("}", ")") for label in labels]
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} or {shown[-1]}" if shown else ""
