"""What judging prompts may cost and has cost, and rows judged once only: every verdict is paid for when it is first needed, and kept."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from foreword.errors import BudgetSpent, ConfigError
from foreword.prompting.journal import Journal
from foreword.prompting.judging import Judge, Judged
from foreword.prompting.strategy import Strategy
from foreword.prompting.template import Template
from foreword.types import Completion, Example, Usage

CHUNK = 32
"""Rows that are under way together: by what these cost at most is a budget overrun."""

Ask = Callable[[], Coroutine[Any, Any, tuple[Completion, Decimal | None]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What may be spent; None is no limit. At least one of them is one."""

    money: Decimal | None = None
    calls: int | None = None

    def __post_init__(self) -> None:
        if self.money is None and self.calls is None:
            raise ConfigError("Say what may be spent: money, or calls of the model.")
        if (self.money is not None and self.money <= 0) or (self.calls is not None and self.calls < 1):
            raise ConfigError(f"A budget is above zero; got {self.money} in money and {self.calls} calls. Leave out what is not limited.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """What has been spent. `money` is None without a price."""

    money: Decimal | None
    calls: int
    tokens: int


class Purse:
    """Judges rows within a budget, and keeps every verdict."""

    def __init__(self, judge: Judge, limits: Limits, journal: Journal, runner: asyncio.Runner) -> None:
        self._judge, self._limits, self._journal, self._runner = judge, limits, journal, runner
        self._paid: dict[str, Judged] = {}
        self._money: Decimal | None = Decimal(0)
        self._calls = self._tokens = 0
        self.kept_back_money, self.kept_back_calls = Decimal(0), 0
        """What is not to be touched: set aside for a last report."""

    @property
    def spent(self) -> Spent:
        """So far; what an earlier run paid for counts when it is used again."""
        return Spent(money=self._money, calls=self._calls, tokens=self._tokens)

    @property
    def share(self) -> float:
        """How much of the budget is spent, what is kept back included: 1 or more when nothing is left."""
        shares = [0.0]
        if self._limits.money is not None and self._money is not None:
            shares.append(float((self._money + self.kept_back_money) / self._limits.money))
        if self._limits.calls is not None:
            shares.append((self._calls + self.kept_back_calls) / self._limits.calls)
        return max(shares)

    def judged(self, key: str, template: Template, strategy: Strategy, rows: Sequence[Example]) -> list[Judged]:
        """A verdict for each row.

        Args:
            key: the same for the same prompt and strategy.

        Raises:
            BudgetSpent: nothing is left for those still missing; what was judged until then is kept.
            ConfigError, ServingError: as `Judge.evaluate`.
        """
        keys = [f"{key}/{row_key(row)}" for row in rows]
        # The same row given twice is asked once.
        missing = [place for one, place in {one: place for place, one in enumerate(keys)}.items() if one not in self._paid]
        for start in range(0, len(missing), CHUNK):
            if self.share >= 1:
                raise BudgetSpent("The budget is spent.")
            self._pay([(keys[place], rows[place]) for place in missing[start : start + CHUNK]], template, strategy)
        return [self._paid[one] for one in keys]

    def asked(self, key: str, ask: Ask) -> str:
        """A text from the model, kept under `key`. Args: ask: an async function that gives the completion, and its cost or None."""
        kept = self._journal.get(key)
        if kept is None:
            if self.share >= 1:
                raise BudgetSpent("The budget is spent.")
            completion, cost = self._runner.run(ask())
            kept = {"text": completion.text, **_paid_for(completion, cost)}
            self._journal.put({key: kept})
        self._account(None if kept["cost"] is None else Decimal(kept["cost"]), 1, kept["prompt_tokens"] + kept["completion_tokens"])
        return kept["text"]

    def _pay(self, wanted: Sequence[tuple[str, Example]], template: Template, strategy: Strategy) -> None:
        """Takes verdicts from the journal, or has them given."""
        unknown = [(key, row) for key, row in wanted if self._journal.get(key) is None]
        if unknown:
            verdicts = self._runner.run(self._judge.evaluate(template, strategy, [row for _, row in unknown]))
            self._journal.put({key: _written(judged) for (key, _), judged in zip(unknown, verdicts, strict=True)})
        for key, _ in wanted:
            entry = self._journal.get(key)
            assert entry is not None, "it was there, or was just put there"
            judged = self._paid[key] = _read(entry)
            self._account(judged.cost, judged.calls, judged.tokens)

    def _account(self, cost: Decimal | None, calls: int, tokens: int) -> None:
        if self._limits.money is not None and cost is None:
            raise ConfigError("A budget in money needs to know what a call costs. Give a price, or limit the calls instead.")
        self._money = None if self._money is None or cost is None else self._money + cost
        self._calls += calls
        self._tokens += tokens


def row_key(row: Example) -> str:
    """A name for a row by what it says."""
    told = [[[message.role, message.content] for message in row.messages], list(row.completions)]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:32]


def _paid_for(completion: Completion, cost: Decimal | None) -> dict[str, Any]:
    usage = completion.usage
    return {
        "prompt_tokens": usage.prompt_positions,
        "completion_tokens": usage.completion_tokens,
        "cost": None if cost is None else str(cost),
    }


def _written(judged: Judged) -> dict[str, Any]:
    usage = judged.usage
    return {
        "success": judged.success,
        "answer": judged.answer,
        "calls": judged.calls,
        "usage": [usage.prompt_tokens, usage.completion_tokens, usage.prefix_positions],
        "cost": None if judged.cost is None else str(judged.cost),
    }


def _read(entry: dict[str, Any]) -> Judged:
    prompt, completion, prefix = entry["usage"]
    return Judged(
        success=entry["success"],
        answer=entry["answer"],
        calls=entry["calls"],
        usage=Usage(prompt_tokens=prompt, completion_tokens=completion, prefix_positions=prefix),
        cost=None if entry["cost"] is None else Decimal(entry["cost"]),
    )
