"""What the parts of a context cost and how often they mattered, by what was captured.

Whether a part mattered cannot be known from traffic alone: no request was also sent without it. What can be seen is whether an answer takes
up its words, and whether a tool was called. A sentence that sets a tone or a form may matter and leave no word behind, so little use is a
reason to try without it (`foreword prompt audit` does, on labelled rows), and no proof.

A template's sentence is one that stands in the instructions of half or more of a task type's requests; a turn before the question that does
is an example. Requests that the cache answered had no context, and are not among them. Token counts are estimates (`budget.py`), save those
that models billed.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from foreword.gateway.assembling.budget import json_tokens, text_tokens
from foreword.gateway.assembling.tools import tool_name
from foreword.gateway.assembling.turns import INSTRUCTING
from foreword.gateway.estimate import TOKENS_PER_TURN
from foreword.prefix.relevance import words
from foreword.prompting.sentences import split
from foreword.telemetry.capture import Captured

TEMPLATE_SHARE = 0.5
LEAST_REQUESTS = 2
FROM_CACHE = frozenset({"exact", "semantic", "stale"})
LONG_WORD = 4
"""Letters from which a word says what a sentence is about."""
MOST_TRACKED = 200_000
"""Different sentences that are counted at a time; of more, those seen once are forgotten."""
_CITED = re.compile(r"\[(\d{1,3})\]")


@dataclass(frozen=True, slots=True, kw_only=True)
class SentenceUse:
    """A sentence of the instructions, or an example turn.

    Attributes:
        tokens: of it, each time.
        requests: that it stood in.
        used: share of their answers that have a word of it which the question has not; None where it has no such words.
    """

    task: str
    text: str
    tokens: int
    requests: int
    used: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolUse:
    """A tool. Attributes: offered: requests that it was sent with; called: answers that called it."""

    task: str
    name: str
    tokens: int
    offered: int
    called: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PassageUse:
    """A passage.

    Attributes:
        shown: requests that it stood in; cited: answers that name its number.
        used: mean share of its words, those of the question aside, that the answer has.
    """

    task: str
    source: str
    tokens: int
    shown: int
    cited: int
    used: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Growth:
    """A task type's context in a week. Tokens are means over its requests; `billed` is as models counted, None where none did."""

    task: str
    week: str
    requests: int
    instructions: float
    history: float
    passages: float
    tools: float
    question: float
    billed: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """The report; each part with what costs most first, growth by week."""

    requests: int
    sentences: tuple[SentenceUse, ...]
    tools: tuple[ToolUse, ...]
    passages: tuple[PassageUse, ...]
    growth: tuple[Growth, ...]


@dataclass(slots=True)
class _Sentence:
    tokens: int
    requests: int = 0
    judged: int = 0
    used: int = 0


@dataclass(slots=True)
class _Tool:
    tokens: int
    offered: int = 0
    called: int = 0


@dataclass(slots=True)
class _Passage:
    tokens: int
    shown: int = 0
    cited: int = 0
    used: float = 0.0


@dataclass(slots=True)
class _Week:
    requests: int = 0
    parts: Counter[str] = field(default_factory=Counter)
    billed: int = 0
    counted: int = 0


def audit(captures: Iterable[Captured]) -> Audit:
    """Goes through captures once."""
    counts = _Counts()
    for captured in captures:
        if captured.cache not in FROM_CACHE:
            counts.add(captured)
    return counts.report()


class _Counts:
    def __init__(self) -> None:
        self._requests: Counter[str] = Counter()
        self._sentences: dict[tuple[str, str], _Sentence] = {}
        self._tools: dict[tuple[str, str], _Tool] = {}
        self._passages: dict[tuple[str, str], _Passage] = {}
        self._weeks: dict[tuple[str, str], _Week] = {}

    def add(self, captured: Captured) -> None:
        """One more request."""
        self._requests[captured.task] += 1
        answered = words(captured.answer)
        opening, history, question = _parted(captured.messages)
        asked = words(_asked(question, captured)) if question else set()
        self._add_sentences(captured, opening, history, asked, answered)
        self._add_tools(captured)
        self._add_passages(captured, asked, answered)
        self._add_week(captured, opening, history, question)

    def report(self) -> Audit:
        """What was counted."""
        sentences = [
            SentenceUse(
                task=task, text=text, tokens=seen.tokens, requests=seen.requests, used=seen.used / seen.judged if seen.judged else None
            )
            for (task, text), seen in self._sentences.items()
            if seen.requests >= max(LEAST_REQUESTS, TEMPLATE_SHARE * self._requests[task])
        ]
        tools = [
            ToolUse(task=task, name=name, tokens=seen.tokens, offered=seen.offered, called=seen.called)
            for (task, name), seen in self._tools.items()
        ]
        passages = [
            PassageUse(task=task, source=source, tokens=seen.tokens, shown=seen.shown, cited=seen.cited, used=seen.used / seen.shown)
            for (task, source), seen in self._passages.items()
        ]
        return Audit(
            requests=self._requests.total(),
            sentences=tuple(sorted(sentences, key=lambda use: (-use.tokens * use.requests, use.task, use.text))),
            tools=tuple(sorted(tools, key=lambda use: (-use.tokens * use.offered, use.task, use.name))),
            passages=tuple(sorted(passages, key=lambda use: (-use.tokens * use.shown, use.task, use.source))),
            growth=tuple(self._growth(task, week, seen) for (task, week), seen in sorted(self._weeks.items())),
        )

    def _add_sentences(
        self,
        captured: Captured,
        opening: Sequence[Mapping[str, Any]],
        history: Sequence[Mapping[str, Any]],
        asked: set[str],
        answered: set[str],
    ) -> None:
        pieces = [piece.strip() for message in opening for piece in split(_text(message))]
        pieces += [f"{message.get('role')}: {_text(message)}" for message in history]
        for piece in dict.fromkeys(piece for piece in pieces if piece):
            seen = self._sentences.setdefault((captured.task, piece), _Sentence(text_tokens(piece)))
            seen.requests += 1
            own = {word for word in words(piece) if len(word) >= LONG_WORD} - asked
            if own and captured.answer:
                seen.judged += 1
                seen.used += bool(own & answered)
        if len(self._sentences) > MOST_TRACKED:
            self._sentences = {key: seen for key, seen in self._sentences.items() if seen.requests > 1}

    def _add_tools(self, captured: Captured) -> None:
        called = set(captured.called)
        for tool in captured.tools:
            name = tool_name(dict(tool)) or str(tool.get("type"))
            seen = self._tools.setdefault((captured.task, name), _Tool(0))
            seen.tokens = json_tokens(tool)
            seen.offered += 1
            seen.called += name in called

    def _add_passages(self, captured: Captured, asked: set[str], answered: set[str]) -> None:
        cited = {int(number) for number in _CITED.findall(captured.answer)}
        for number, (source, text) in enumerate(captured.sources, start=1):
            seen = self._passages.setdefault((captured.task, source), _Passage(text_tokens(text)))
            own = words(text) - asked
            seen.shown += 1
            seen.cited += number in cited
            seen.used += len(own & answered) / len(own) if own else 0.0

    def _add_week(
        self,
        captured: Captured,
        opening: Sequence[Mapping[str, Any]],
        history: Sequence[Mapping[str, Any]],
        question: Sequence[Mapping[str, Any]],
    ) -> None:
        week = self._weeks.setdefault((captured.task, captured.at.strftime("%G-W%V")), _Week())
        passages = sum(text_tokens(text) for _, text in captured.sources)
        week.requests += 1
        week.parts["instructions"] += _tokens(opening)
        week.parts["history"] += _tokens(history)
        week.parts["passages"] += passages
        week.parts["tools"] += sum(json_tokens(tool) for tool in captured.tools)
        week.parts["question"] += max(0, _tokens(question) - passages)
        if captured.input_tokens is not None:
            week.billed += captured.input_tokens
            week.counted += 1

    @staticmethod
    def _growth(task: str, week: str, seen: _Week) -> Growth:
        parts = {name: seen.parts[name] / seen.requests for name in ("instructions", "history", "passages", "tools", "question")}
        return Growth(task=task, week=week, requests=seen.requests, billed=seen.billed / seen.counted if seen.counted else None, **parts)


def _parted(messages: Sequence[Mapping[str, Any]]) -> tuple[Sequence[Mapping[str, Any]], ...]:
    """Instructions, what was said before the question, and the question with what follows it."""
    last = max((place for place, message in enumerate(messages) if message.get("role") == "user"), default=len(messages))
    opening = [message for message in messages[:last] if message.get("role") in INSTRUCTING]
    history = [message for message in messages[:last] if message.get("role") not in INSTRUCTING]
    return opening, history, messages[last:]


def _text(message: Mapping[str, Any]) -> str:
    content = message.get("content")
    if isinstance(content, list):
        return "".join(str(part.get("text", "")) for part in content if isinstance(part, Mapping))
    return content if isinstance(content, str) else ""


def _asked(question: Sequence[Mapping[str, Any]], captured: Captured) -> str:
    """The user's own words: the passages stand in the same message."""
    text = _text(question[0])
    for _, passage in captured.sources:
        text = text.replace(passage, " ")
    return text


def _tokens(messages: Sequence[Mapping[str, Any]]) -> int:
    calls = [message["tool_calls"] for message in messages if message.get("tool_calls")]
    return sum(TOKENS_PER_TURN + text_tokens(_text(message)) for message in messages) + sum(map(json_tokens, calls))
