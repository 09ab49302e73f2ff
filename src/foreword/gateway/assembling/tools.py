"""Which of a request's tools are sent on: those that its words match, and those that its task type has called.

A tool is as like a request as its name and description are: the cosine of the embedder's vectors, and half the share of the tool's words
that the request has. The last two turns of the user count, the better one. The likest tool is always sent, up to `MOST` are where they are
like enough. Never left out are a tool that `tool_choice` names, one whose call stands in the conversation, and one that is no function.
"""

from __future__ import annotations

import re
from collections import Counter, OrderedDict, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from foreword.gateway.passage import Passage
from foreword.gateway.path_wire import PathMessage, PathRequest
from foreword.gateway.question import excerpt, question_vector
from foreword.prefix.relevance import words

if TYPE_CHECKING:
    import numpy as np

    from foreword.retrieval.embedder import Embedder

MOST = 8
LIKE = 0.2
LIKE_IN_WORDS = 0.05
"""From which likeness on a tool is sent; the second where there is no embedder, and words are all there is."""
REMEMBERED = 1_000
"""Answers that called a tool, of each tenant's task type."""
MOST_KEPT = 4_096
_TURNS = 2
_MOST_DESCRIPTION = 600
_LONGEST = 8
_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|[_.\-/:]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """Attributes: kept: places in the request's list, ascending; spare: those of them that may go too, the least like one first."""

    kept: tuple[int, ...]
    spare: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Known:
    words: frozenset[str]
    weight: int
    vector_D: np.ndarray | None


class Tools:
    """Chooses tools, and remembers which were called. For one event loop."""

    def __init__(self, embedder: Embedder | None) -> None:
        self._embedder = embedder
        self._known: OrderedDict[str, _Known] = OrderedDict()
        self._called: OrderedDict[tuple[str, str], _Called] = OrderedDict()

    def choose(self, passage: Passage, tools: Sequence[dict[str, Any]], *, with_used: bool) -> Choice:
        """Which of the tools are sent. Args: with_used: also those that this tenant's task type has called."""
        request = passage.request
        pinned = pinned_names(request)
        used = self.used(passage) if with_used else frozenset()
        names = [tool_name(tool) for tool in tools]
        fixed = {place for place, name in enumerate(names) if name is None or name in pinned}
        scores = self._scores(passage, tools)
        ranked = sorted((place for place in range(len(tools)) if place not in fixed), key=lambda place: (-scores[place], place))
        like = LIKE if self._embedder is not None else LIKE_IN_WORDS
        matching = [place for rank, place in enumerate(ranked[:MOST]) if scores[place] >= like or (rank == 0 and not fixed)]
        learnt = [place for place in ranked if names[place] in used and place not in matching]
        spare = [*matching, *learnt]
        # One is left in any case: a request with tools wants one called.
        least = 0 if fixed else 1
        return Choice(kept=tuple(sorted({*fixed, *spare})), spare=tuple(reversed(spare[least:])))

    def remember(self, passage: Passage, names: Iterable[str]) -> None:
        """Notes that an answer of this passage's task type called these."""
        called = [name for name in names if name]
        if not called:
            return
        key = (passage.tenant.name, passage.task.name)
        self._called.setdefault(key, _Called()).add(called)
        self._called.move_to_end(key)
        while len(self._called) > MOST_KEPT:
            self._called.popitem(last=False)

    def used(self, passage: Passage) -> frozenset[str]:
        """What the task type has called in its last answers, for this tenant."""
        found = self._called.get((passage.tenant.name, passage.task.name))
        return frozenset() if found is None else found.names()

    def _scores(self, passage: Passage, tools: Sequence[dict[str, Any]]) -> list[float]:
        asked = [message.text for message in passage.request.messages if message.role == "user"][-_TURNS:]
        vectors = self._vectors(passage, asked)
        spoken = [words(excerpt(text)) for text in asked]
        found = []
        for tool in tools:
            known = self._tool(tool)
            best = 0.0
            for vector_D, said in zip(vectors, spoken, strict=True):
                score = _weight(known.words & said) / known.weight / 2 if known.weight else 0.0
                if vector_D is not None and known.vector_D is not None:
                    score += float(known.vector_D @ vector_D)
                best = max(best, score)
            found.append(best)
        return found

    def _vectors(self, passage: Passage, asked: Sequence[str]) -> list[np.ndarray | None]:
        if self._embedder is None or not asked:
            return [None] * len(asked)
        earlier = list(self._embedder.embed([excerpt(text) for text in asked[:-1]])) if len(asked) > 1 else []
        return [*earlier, question_vector(passage, self._embedder)]

    def _tool(self, tool: dict[str, Any]) -> _Known:
        text = described(tool)
        known = self._known.get(text)
        if known is None:
            found = frozenset(words(text))
            vector_D = None if self._embedder is None else self._embedder.embed([text])[0]
            known = self._known[text] = _Known(words=found, weight=_weight(found), vector_D=vector_D)
            while len(self._known) > MOST_KEPT:
                self._known.popitem(last=False)
        else:
            self._known.move_to_end(text)
        return known


class _Called:
    """What the last answers called."""

    def __init__(self) -> None:
        self._answers: deque[tuple[str, ...]] = deque()
        self._counts: Counter[str] = Counter()

    def add(self, names: Sequence[str]) -> None:
        """One more answer."""
        answer = tuple(dict.fromkeys(names))
        self._answers.append(answer)
        self._counts.update(answer)
        if len(self._answers) > REMEMBERED:
            self._counts.subtract(self._answers.popleft())
            self._counts += Counter()

    def names(self) -> frozenset[str]:
        """All that were called."""
        return frozenset(self._counts)


def tool_name(tool: dict[str, Any]) -> str | None:
    """The name of a function or of a custom tool; None for a tool that the model's server has itself."""
    for kind in ("function", "custom"):
        inner = tool.get(kind)
        if isinstance(inner, dict) and isinstance(inner.get("name"), str):
            return inner["name"]
    return None


def described(tool: dict[str, Any]) -> str:
    """Name and description as words."""
    inner = tool.get("function") or tool.get("custom") or {}
    description = inner.get("description") if isinstance(inner, dict) else None
    name = _HUMP.sub(" ", tool_name(tool) or "")
    return f"{name} {description[:_MOST_DESCRIPTION] if isinstance(description, str) else ''}"


def called_in(messages: Iterable[PathMessage]) -> list[str]:
    """The names of tools whose calls stand in messages."""
    calls = (call for message in messages if isinstance(message.tool_calls, list) for call in message.tool_calls)
    return [name for call in calls if (name := tool_name(call)) is not None]


def pinned_names(request: PathRequest) -> frozenset[str]:
    """Tools that must stay: those that `tool_choice` names, and those whose calls stand in the conversation."""
    chosen = request.tool_choice
    named: list[str | None] = []
    if isinstance(chosen, dict):
        named.append(tool_name(chosen))
        allowed = chosen.get("allowed_tools")
        if isinstance(allowed, dict) and isinstance(allowed.get("tools"), list):
            named += [tool_name(tool) for tool in allowed["tools"] if isinstance(tool, dict)]
    return frozenset(name for name in (*named, *called_in(request.messages)) if name is not None)


def _weight(found: Iterable[str]) -> int:
    """A word counts with the square of its length: short ones are everybody's."""
    return sum(min(len(word), _LONGEST) ** 2 for word in found)
