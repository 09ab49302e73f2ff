"""Which sentences and examples of a prompt earn their tokens: each is left out in turn, and stays out where no success is lost by it.

For models that only take text, where no prefix can stand for the prompt. The search is greedy: what would save most tokens is tried first,
and what is out stays out while the next is tried. Every change is compared with the prompt as it was given, row by row on the same rows, so
that small losses do not add up unseen. Where a sentence cannot go, it is tried without the words that say nothing (`sentences.shortened`).

Rows that were looked at so often flatter the result; held-out rows say what it is worth.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, Field

from foreword.errors import BudgetSpent, ConfigError, DataError
from foreword.prompting import candidates, sentences, strategy
from foreword.prompting.journal import Journal
from foreword.prompting.judging import Judge, Judged
from foreword.prompting.measured import Compared, compare
from foreword.prompting.spending import Limits, Purse, Spent, row_key
from foreword.prompting.strategy import Strategy
from foreword.prompting.template import Template, Turn, build
from foreword.types import Example

if TYPE_CHECKING:
    from pydantic import JsonValue

MADE_BY = "foreword prompt audit"
Outcome = Literal["removed", "shortened", "kept", "not tried"]
Count = Callable[[str], int]
"""Tokens of a text."""


class AuditSettings(BaseModel):
    """What a part may cost to lose.

    Attributes:
        tolerance: the share of successes that all changes together may lose, as measured.
        margin: what they may lose at worst: the low end of the difference's interval must not lie below it. Stricter, and needs many rows;
            None asks for the measured difference alone.
        strategy: what the prompt is asked with.
        examples: also try to leave out examples.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    tolerance: float = Field(default=0.0, ge=0, lt=1)
    margin: float | None = Field(default=None, ge=0, lt=1)
    strategy: str = "zero-shot"
    examples: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A sentence or an example of the prompt as it was given. `message` is None for examples; `place` counts within the message."""

    message: int | None
    place: int
    text: str
    tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """What became of a part. `compared` is the prompt so far without it (or with its shorter form), against the prompt as it was given."""

    part: Part
    outcome: Outcome
    compared: Compared | None
    shorter: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """What an audit found.

    Attributes:
        template: the prompt without what it does not need, with its evidence.
        lines: in the order in which parts were tried.
        rows: the prompt as it was given and as it is now, on the rows that decided.
        held_out: on rows that did not; None where none were given or the budget left none.
        tokens: of sentences and examples, before and after.
    """

    template: Template
    lines: tuple[Line, ...]
    rows: Compared
    held_out: Compared | None
    tokens: tuple[int, int]
    spent: Spent


def audit(
    hand: Template,
    judge: Judge,
    rows: Sequence[Example],
    *,
    limits: Limits,
    held_out: Sequence[Example] = (),
    settings: AuditSettings | None = None,
    count: Count | None = None,
    journal: Path | None = None,
    observe: Callable[[Line], None] | None = None,
) -> Audit:
    """Leaves out what can be spared. Runs an event loop of its own, so it is not called from a running one.

    Args:
        rows: that decide.
        limits: what may be spent.
        count: tokens of a text; words where it is missing.
        journal: a file or a folder from which an interrupted audit goes on; see `Journal`.
        observe: told of each part.

    Raises:
        ConfigError: there are no rows, or the budget does not even judge the prompt as it was given.
        ServingError: the model cannot be asked.
    """
    chosen = settings or AuditSettings()
    if not rows:
        raise ConfigError("An audit measures on rows; give some.")
    work = _work(hand, judge, chosen, [rows, held_out])
    with asyncio.Runner() as runner:
        purse = Purse(judge, limits, Journal(journal, work=work), runner)
        return _Auditor(hand, purse, rows, chosen, count or (lambda text: len(text.split()))).audited(held_out, observe, judge.name)


@dataclass(frozen=True, slots=True)
class _Draft:
    """The prompt in the making: its messages' sentences and its examples, each in its first place; None is left out."""

    messages: tuple[tuple[str | None, ...], ...]
    examples: tuple[bool, ...]

    def without(self, part: Part, text: str | None = None) -> _Draft:
        """Without a part, or with another text in its place."""
        if part.message is None:
            return replace(self, examples=(*self.examples[: part.place], False, *self.examples[part.place + 1 :]))
        pieces = self.messages[part.message]
        changed = (*pieces[: part.place], text, *pieces[part.place + 1 :])
        return replace(self, messages=(*self.messages[: part.message], changed, *self.messages[part.message + 1 :]))


class _Auditor:
    def __init__(self, hand: Template, purse: Purse, rows: Sequence[Example], settings: AuditSettings, count: Count) -> None:
        self._hand, self._purse, self._rows, self._settings, self._count = hand, purse, rows, settings, count
        self._strategy: Strategy = strategy.parse(settings.strategy)
        self._draft = _Draft(tuple(tuple(sentences.split(turn.content)) for turn in hand.messages), (True,) * len(hand.examples))

    def audited(self, held_out: Sequence[Example], observe: Callable[[Line], None] | None, judge: str) -> Audit:
        given = self._template(self._draft)
        try:
            before = self._judged(given, self._rows)
            before_held_out = self._judged(given, held_out)
        except BudgetSpent:
            raise ConfigError(
                f"The budget is spent before the prompt as it was given was judged on {len(self._rows)} rows and {len(held_out)} held-out "
                "rows. Raise it, or give fewer rows."
            ) from None
        lines, spent = [], False
        for part in sorted(self._parts(), key=lambda part: -part.tokens):
            line = Line(part=part, outcome="not tried", compared=None)
            if not spent:
                try:
                    line = self._tried(part, before)
                except BudgetSpent:
                    spent = True
            lines.append(line)
            if observe is not None:
                observe(line)
        template = self._template(self._draft)
        after = self._judged(template, self._rows)
        found = Audit(
            template=template,
            lines=tuple(lines),
            rows=compare(before, after),
            held_out=self._on_held_out(template, held_out, before_held_out),
            tokens=(self._tokens(given), self._tokens(template)),
            spent=self._purse.spent,
        )
        return replace(found, template=template.model_copy(update={"evidence": self._evidence(found, judge)}))

    def _parts(self) -> Iterator[Part]:
        for number, pieces in enumerate(self._draft.messages):
            for place, text in enumerate(pieces):
                if text is not None and text.strip() and not sentences.has_jinja(text):
                    yield Part(message=number, place=place, text=text.strip(), tokens=self._count(text))
        if self._settings.examples:
            for place, shot in enumerate(self._hand.examples):
                text = f"{shot.user} → {shot.assistant}"
                yield Part(message=None, place=place, text=text, tokens=self._count(shot.user) + self._count(shot.assistant))

    def _tried(self, part: Part, before: Sequence[Judged]) -> Line:
        """The part left out, else shortened, else kept."""
        compared = self._compared(self._draft.without(part), before)
        if self._keeps_success(compared):
            self._draft = self._draft.without(part)
            return Line(part=part, outcome="removed", compared=compared)
        whole = None if part.message is None else self._draft.messages[part.message][part.place]
        shorter = None if whole is None else sentences.shortened(whole)
        if shorter is not None and shorter != whole:
            shortened = self._compared(self._draft.without(part, shorter), before)
            if self._keeps_success(shortened):
                self._draft = self._draft.without(part, shorter)
                return Line(part=part, outcome="shortened", compared=shortened, shorter=shorter.strip())
        return Line(part=part, outcome="kept", compared=compared)

    def _compared(self, draft: _Draft, before: Sequence[Judged]) -> Compared | None:
        """None where what is left is no prompt."""
        try:
            template = self._template(draft)
        except DataError:
            return None
        return compare(before, self._judged(template, self._rows))

    def _keeps_success(self, compared: Compared | None) -> bool:
        if compared is None:
            return False
        change, settings = compared.difference, self._settings
        return change.difference >= -settings.tolerance - 1e-12 and (settings.margin is None or change.low >= -settings.margin)

    def _on_held_out(self, template: Template, held_out: Sequence[Example], before: Sequence[Judged]) -> Compared | None:
        if not held_out:
            return None
        try:
            return compare(before, self._judged(template, held_out))
        except BudgetSpent:
            return None

    def _judged(self, template: Template, rows: Sequence[Example]) -> list[Judged]:
        return self._purse.judged(candidates.key_of(template, self._strategy), template, self._strategy, rows)

    def _template(self, draft: _Draft) -> Template:
        """Raises `DataError` where no message is left, or one that a variable's default belongs to."""
        texts = ["".join(piece for piece in pieces if piece is not None) for pieces in draft.messages]
        turns = [Turn(role=turn.role, content=_trimmed(text, turn.content)) for turn, text in zip(self._hand.messages, texts, strict=True)]
        shots = [shot for shot, stays in zip(self._hand.examples, draft.examples, strict=True) if stays]
        fields = self._hand.model_dump() | {
            "messages": [turn.model_dump() for turn in turns if turn.content.strip()],
            "examples": [shot.model_dump() for shot in shots],
            "evidence": None,
        }
        return build(fields, source="what is left of the prompt")

    def _tokens(self, template: Template) -> int:
        texts = [turn.content for turn in template.messages]
        return sum(map(self._count, [*texts, *(text for shot in template.examples for text in (shot.user, shot.assistant))]))

    def _evidence(self, found: Audit, judge: str) -> dict[str, JsonValue]:
        outcomes = [line.outcome for line in found.lines]
        spent = found.spent
        return {
            "made_by": MADE_BY,
            "judge": judge,
            "rows": found.rows.told(),
            "held_out": None if found.held_out is None else found.held_out.told(),
            "parts": {outcome: outcomes.count(outcome) for outcome in ("removed", "shortened", "kept", "not tried")},
            "tokens": list(found.tokens),
            "spent": {"money": None if spent.money is None else str(spent.money), "calls": spent.calls, "tokens": spent.tokens},
            "settings": self._settings.model_dump(mode="json"),
        }


def _trimmed(text: str, given: str) -> str:
    """What is left of a message, with no blanks at its ends that were not there before."""
    text = text if given[:1].isspace() else text.lstrip()
    return text if given[-1:].isspace() else text.rstrip()


def _work(hand: Template, judge: Judge, settings: AuditSettings, data: Sequence[Sequence[Example]]) -> dict[str, JsonValue]:
    rows = hashlib.sha256(json.dumps([[row_key(row) for row in rows] for rows in data]).encode()).hexdigest()
    prompt = hashlib.sha256(hand.model_dump_json(exclude={"evidence"}).encode()).hexdigest()
    return {"prompt": prompt, "rows": rows, "judge": judge.name, "settings": settings.model_dump(mode="json")}
