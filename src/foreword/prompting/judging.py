"""What judges prompts: rows are asked with a prompt and a strategy, and each answer is a success or not, with what it took.

Optimising and auditing ask through `Judge`; anything that can say of a row whether it went well will do. `StrategyJudge` is the usual one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Protocol

from foreword.cost.prices import Price
from foreword.errors import ConfigError, ServingError
from foreword.prompting import inputs
from foreword.prompting.final_answer import final_answer, last_number, vote_key
from foreword.prompting.model import Model
from foreword.prompting.strategy import Budget, Resources, Strategy, solve
from foreword.prompting.template import Template
from foreword.types import Example, Sampling, Usage

Success = Callable[[str, Example], bool]
"""Whether an answer is as good as a row's wanted ones."""

AT_ONCE = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """What became of one row.

    Attributes:
        answer: what the strategy came to.
        usage: tokens of all its calls.
        cost: None without a price.
    """

    success: bool
    answer: str
    calls: int
    usage: Usage
    cost: Decimal | None

    @property
    def tokens(self) -> int:
        """Prompts' and answers' tokens; prefix positions count as the prompt's."""
        return self.usage.prompt_positions + self.usage.completion_tokens


class Judge(Protocol):
    """Asks rows and judges the answers."""

    @property
    def name(self) -> str:
        """What it asks and how it judges: evidence names it, and work that goes on after an interruption must have the same."""
        ...

    async def evaluate(self, template: Template, strategy: Strategy, rows: Sequence[Example]) -> tuple[Judged, ...]:
        """One verdict for each row, in order.

        Raises:
            ConfigError: the prompt has no place for the rows, or the strategy lacks what it needs.
            ServingError: the model could be asked none of the rows, as when the prompt does not fit its window.
        """
        ...


class StrategyJudge:
    """Meets `Judge`: each row is asked of a model with the strategy, and its short answer is compared with the wanted ones."""

    def __init__(
        self,
        model: Model,
        success: Success,
        *,
        price: Price | None = None,
        sampling: Sampling | None = None,
        budget: Budget | None = None,
        resources: Resources | None = None,
        variable: str | None = None,
        name: str | None = None,
    ) -> None:
        """Args: budget: of one row. variable: which of the prompt's variables takes the rows' texts."""
        self._model, self._success, self._price = model, success, price
        self._sampling, self._budget, self._resources = sampling, budget, resources
        self._variable = variable
        self.name = name or f"{model.name} by {getattr(success, '__name__', 'a rule of its own')}"

    async def evaluate(self, template: Template, strategy: Strategy, rows: Sequence[Example]) -> tuple[Judged, ...]:
        """As `Judge.evaluate`; `AT_ONCE` rows are under way together."""
        variable = inputs.input_variable(template, self._variable)
        room = asyncio.Semaphore(AT_ONCE)

        async def one(row: Example) -> tuple[Judged, str]:
            async with room:
                return await self._judged(template, strategy, row, variable)

        answered = await asyncio.gather(*(one(row) for row in rows))
        if answered and all(reason for _, reason in answered):
            raise ServingError(f"`{self._model.name}` answered none of {len(rows)} rows: {answered[0][1]}")
        return tuple(judged for judged, _ in answered)

    async def _judged(self, template: Template, strategy: Strategy, row: Example, variable: str | None) -> tuple[Judged, str]:
        """The verdict, and why the model could not be asked, where it could not."""
        asked = inputs.conversation_of(template, row, variable=variable)
        solved = await solve(
            strategy, asked, self._model, resources=self._resources, sampling=self._sampling, budget=self._budget, price=self._price
        )
        judged = Judged(
            success=solved.status != "failed" and self._success(solved.final, row),
            answer=solved.final,
            calls=solved.calls,
            usage=solved.usage,
            cost=solved.cost,
        )
        unasked = solved.status == "failed" and not judged.tokens
        return judged, solved.reason if unasked else ""


def equals(answer: str, row: Example) -> bool:
    """The answer, or the short answer in it, is a wanted one; case, outer punctuation and how a number is written do not count."""
    said = {vote_key(answer), vote_key(final_answer(answer))}
    return any(vote_key(wanted) in said for wanted in row.completions)


def contains(answer: str, row: Example) -> bool:
    """A wanted answer stands in the answer as whole words."""
    said = f" {' '.join(_words(answer))} "
    return any(f" {' '.join(_words(wanted))} " in said for wanted in row.completions)


def same_number(answer: str, row: Example) -> bool:
    """The last number of the answer is the last number of a wanted one."""
    said = last_number(final_answer(answer)) or last_number(answer)
    return said is not None and any(said == last_number(wanted) for wanted in row.completions)


RULES: dict[str, Success] = {"equals": equals, "contains": contains, "number": same_number}


def rule(name: str) -> Success:
    """The rule called `name`. Raises `ConfigError`."""
    if name not in RULES:
        raise ConfigError(f"There is no rule `{name}` for what a success is. There are {', '.join(RULES)}.")
    return RULES[name]


def _words(text: str) -> list[str]:
    return "".join(character if character.isalnum() else " " for character in text.casefold()).split()
