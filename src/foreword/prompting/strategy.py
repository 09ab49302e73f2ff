"""What a strategy is: a way to get an answer out of a frozen model by asking it once or many times. They live in `strategies/`.

A strategy module is found by its file name (`self_consistency.py` is `self-consistency`) and has

    class Settings(StrategySettings)                             its settings, each with a default
    async def answer(conversation, settings, run) -> Draft       asks through `run`, as often as it needs to

`solve` runs one. The model's calls are counted, paid and traced in `Run`, so that a strategy is nothing but its method. One that has spent
its budget ends with the best that it has told `run` of. As text a strategy reads `self-consistency(n=10)`, and together with a model
`strategy:self-consistency(smollm2:support, n=10)`.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError

from foreword import registry
from foreword.cost.prices import Price, cost_per_request
from foreword.errors import BudgetSpent, ConfigError, ServingError, StrategyError, WindowError
from foreword.prompting.model import Model
from foreword.prompting.named_settings import read_settings, split_name, written
from foreword.prompting.template import Shot
from foreword.prompting.tool import Tools
from foreword.prompting.verifier import Verify
from foreword.telemetry.trace import Trace, Tracer
from foreword.types import Completion, Message, Sampling, Usage

if TYPE_CHECKING:
    import numpy as np

    from foreword.retrieval.embedder import Embedder

FOLDER = "foreword.prompting.strategies"
SCHEME = "strategy:"

Status = Literal["answered", "budget", "failed"]


class StrategySettings(BaseModel):
    """Base of every strategy's `Settings`: unknown names are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Strategy:
    """A strategy as it was asked for."""

    key: str
    settings: StrategySettings
    module: ModuleType

    def __str__(self) -> str:
        changed = self.settings.model_dump(mode="json", exclude_defaults=True)
        told = ", ".join(f"{name}={written(value)}" for name, value in changed.items())
        return f"{self.key}({told})" if told else self.key


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """What one answer may take at most; None is no limit. Calls under way when it is spent are paid for, so it may be passed by those."""

    calls: int | None = 200
    tokens: int | None = None
    money: Decimal | None = None
    seconds: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """What stands by for a strategy besides its model.

    Attributes:
        shots: examples of the task, to choose from.
        verify: checks an answer without a gold one.
        tools: what may be called.
        embedder: tells which texts are alike.
    """

    shots: tuple[Shot, ...] = ()
    verify: Verify | None = None
    tools: Tools = field(default_factory=Tools)
    embedder: Embedder | None = None
    _vectors: _ShotVectors = field(default_factory=lambda: _ShotVectors(), init=False, repr=False, compare=False)

    def shot_vectors(self) -> np.ndarray:
        """Vectors S D of the examples' questions, made once. Safe from several threads. Raises `ConfigError` without an embedder."""
        if self.embedder is None:
            raise ConfigError("The examples cannot be compared: there is no embedder. Give the resources one.")
        return self._vectors.of(self.embedder, self.shots)


class _ShotVectors:
    """The vectors of one set of examples."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._made: np.ndarray | None = None

    def of(self, embedder: Embedder, shots: Sequence[Shot]) -> np.ndarray:
        """Vectors S D; those who come while they are being made wait."""
        with self._lock:
            if self._made is None:
                self._made = embedder.embed([shot.user for shot in shots])
            return self._made


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """What a strategy comes to.

    Attributes:
        text: the whole answer, as a user would read it.
        final: the short answer in it; None where the whole is the answer.
        candidates: short answers that it chose from, the chosen one included, in the order in which they came up; where the first answer
            of all has none that can be recognised, its last line stands for it. Empty where there was no choice.
        note: how it ended, where that is worth saying: `stopped after 7 of 40 samples`.
    """

    text: str
    final: str | None = None
    candidates: tuple[str, ...] = ()
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Solved:
    """An answer with everything that it took.

    Attributes:
        status: `budget` where the budget ended it, `failed` where the model could not be asked or never said what was needed; `text` is
            then the best that there was, or empty.
        reason: why, where it is not `answered`.
        calls: of the model.
        usage: tokens of all calls together.
        cost: None without a price.
        seconds: wall time from the first step to the last.
        model_seconds: wall time in which at least one call was under way.
    """

    text: str
    final: str
    candidates: tuple[str, ...]
    status: Status
    reason: str
    note: str
    calls: int
    usage: Usage
    cost: Decimal | None
    seconds: float
    model_seconds: float
    trace: Trace


class Run:
    """One answer in the making: asks the model, within a budget, and records every step."""

    def __init__(
        self,
        model: Model,
        *,
        resources: Resources | None = None,
        sampling: Sampling | None = None,
        budget: Budget | None = None,
        price: Price | None = None,
        tracer: Tracer | None = None,
    ) -> None:
        """Args: sampling: what calls are drawn with where a strategy does not say otherwise; its seed is that of all draws together."""
        self.model = model
        self.resources = resources or Resources()
        self.sampling = sampling or Sampling()
        self.budget = budget or Budget()
        self.tracer = tracer or Tracer()
        self.best: Draft | None = None
        self.calls = self.prompt_tokens = self.completion_tokens = self.prefix_positions = 0
        self.cost: Decimal | None = None if price is None else Decimal(0)
        self.model_seconds = 0.0
        self._price = price
        self._began = time.perf_counter()
        self._asked: Counter[tuple[Message, ...]] = Counter()
        self._under_way, self._busy_since = 0, 0.0

    @property
    def tokens(self) -> int:
        """Tokens of all calls so far, prompts' and answers'."""
        return self.prompt_tokens + self.completion_tokens

    def keep(self, draft: Draft) -> None:
        """Tells of the best answer so far, which is what there is if the budget ends the run."""
        self.best = draft

    async def ask(self, conversation: Sequence[Message], *, purpose: str = "answer", **changes: Any) -> Completion:
        """One call of the model.

        Equal conversations are drawn with different seeds, which depend on the run's seed and on how many times the same was asked before;
        so the same run draws the same answers, in whatever order its branches come to ask.

        Args:
            purpose: what the call is for, told in the trace.
            changes: fields of `Sampling` for this call.

        Raises:
            BudgetSpent: nothing is left for another call.
            WindowError, ServingError: as `Model.answer`.
        """
        self._check_budget()
        asked = tuple(conversation)
        sampling = replace(self.sampling, **{"seed": self._seed(asked), **changes})
        prompt: list[JsonValue] = [{"role": message.role, "content": message.content} for message in asked]
        with self.tracer.span("call", self.model.name, {"purpose": purpose, "prompt": prompt}) as span:
            self._enter()
            try:
                async with asyncio.timeout(self._seconds_left()):
                    completion = await self.model.answer(asked, sampling)
            except TimeoutError:
                raise BudgetSpent(f"The budget of {self.budget.seconds:g} seconds is spent.") from None
            finally:
                self._leave()
            usage = completion.usage
            self._account(completion)
            span.set(
                text=completion.text,
                prompt_tokens=usage.prompt_tokens,
                prefix_positions=usage.prefix_positions,
                completion_tokens=usage.completion_tokens,
                finish_reason=completion.finish_reason,
            )
        return completion

    def left(self) -> Budget:
        """What is left of the budget now: the budget of work that is paid from this run's (see `charge`)."""
        budget, paid = self.budget, self.cost or Decimal(0)
        return Budget(
            calls=None if budget.calls is None else max(0, budget.calls - self.calls),
            tokens=None if budget.tokens is None else max(0, budget.tokens - self.tokens),
            money=None if budget.money is None else max(Decimal(0), budget.money - paid),
            seconds=self._seconds_left(),
        )

    def charge(self, other: Run) -> None:
        """Adds what another run took that was paid from this one's budget; its cost is unknown where the other's is."""
        self.calls += other.calls
        self.prompt_tokens += other.prompt_tokens
        self.completion_tokens += other.completion_tokens
        self.prefix_positions += other.prefix_positions
        self.model_seconds += other.model_seconds
        if other.calls:
            self.cost = None if self.cost is None or other.cost is None else self.cost + other.cost

    async def ask_several(
        self, conversation: Sequence[Message], count: int, *, purpose: str = "answer", **changes: Any
    ) -> list[Completion]:
        """`count` answers to one conversation, drawn at once; the first failure cancels the others and is raised."""
        return await together([self.ask(conversation, purpose=purpose, **changes) for _ in range(count)])

    def _check_budget(self) -> None:
        budget = self.budget
        if budget.calls is not None and self.calls >= budget.calls:
            raise BudgetSpent(f"The budget of {budget.calls} calls is spent.")
        if budget.tokens is not None and self.tokens >= budget.tokens:
            raise BudgetSpent(f"The budget of {budget.tokens:,} tokens is spent ({self.tokens:,} used).")
        if budget.money is not None and self.cost is not None and self.cost >= budget.money:
            raise BudgetSpent(f"The budget of {budget.money} is spent ({self.cost:.6f} paid).")
        if budget.seconds is not None and self._seconds_left() == 0:
            raise BudgetSpent(f"The budget of {budget.seconds:g} seconds is spent.")

    def _seconds_left(self) -> float | None:
        return None if self.budget.seconds is None else max(0.0, self.budget.seconds - (time.perf_counter() - self._began))

    def _enter(self) -> None:
        # Counted when a call begins, so that a hundred begun at once do not all see an untouched budget.
        self.calls += 1
        if not self._under_way:
            self._busy_since = time.perf_counter()
        self._under_way += 1

    def _leave(self) -> None:
        self._under_way -= 1
        if not self._under_way:
            self.model_seconds += time.perf_counter() - self._busy_since

    def _account(self, completion: Completion) -> None:
        usage = completion.usage
        self.prompt_tokens += usage.prompt_tokens
        self.completion_tokens += usage.completion_tokens
        self.prefix_positions += usage.prefix_positions
        if self.cost is not None:
            paid = cost_per_request(self._price, usage, completion.seconds)
            self.cost = None if paid is None else self.cost + paid

    def _seed(self, conversation: tuple[Message, ...]) -> int:
        count = self._asked[conversation]
        self._asked[conversation] += 1
        told = json.dumps([self.sampling.seed, count, [[message.role, message.content] for message in conversation]])
        return int.from_bytes(hashlib.sha256(told.encode("utf-8", "surrogatepass")).digest()[:4]) >> 1


async def together(coroutines: Sequence[Any]) -> list[Any]:
    """The results of coroutines that run at once, in their order; the first failure cancels the others and is raised as it is."""
    tasks = [asyncio.ensure_future(coroutine) for coroutine in coroutines]
    try:
        return list(await asyncio.gather(*tasks))
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise


async def solve(
    strategy: Strategy,
    conversation: Sequence[Message],
    model: Model,
    *,
    resources: Resources | None = None,
    sampling: Sampling | None = None,
    budget: Budget | None = None,
    price: Price | None = None,
) -> Solved:
    """Has a strategy answer a conversation whose last turn is the user's.

    What goes wrong on the way is part of the result: a budget that is spent, a prompt that outgrows the window, an engine that fails, a
    model that never says what the strategy needs.

    Raises:
        ConfigError: the conversation does not end with the user's turn, or the strategy lacks something that it cannot do without.
    """
    if not conversation or conversation[-1].role != "user":
        raise ConfigError("A strategy answers the user's last turn; the conversation has none at its end. End it with one.")
    run = Run(model, resources=resources, sampling=sampling, budget=budget, price=price)
    began = time.perf_counter()
    draft, status, reason = Draft(text=""), "answered", ""
    with run.tracer.outermost(), run.tracer.span("run", str(strategy)) as span:
        try:
            draft = await strategy.module.answer(tuple(conversation), strategy.settings, run)
        except (StrategyError, WindowError, ServingError) as error:
            status, reason = ("budget" if isinstance(error, BudgetSpent) else "failed"), str(error)
            draft = run.best or draft
            span.failed(reason)
        final = draft.text if draft.final is None else draft.final
        span.set(status=status, final=final, candidates=list(draft.candidates), note=draft.note, calls=run.calls, tokens=run.tokens)
    return Solved(
        text=draft.text,
        final=final,
        candidates=draft.candidates,
        status=status,
        reason=reason,
        note=draft.note,
        calls=run.calls,
        usage=Usage(prompt_tokens=run.prompt_tokens, completion_tokens=run.completion_tokens, prefix_positions=run.prefix_positions),
        cost=run.cost,
        seconds=time.perf_counter() - began,
        model_seconds=run.model_seconds,
        trace=run.tracer.trace(),
    )


def names() -> tuple[str, ...]:
    """The keys of all strategies."""
    return registry.names(FOLDER)


def get(key: str, /, **settings: Any) -> Strategy:
    """The strategy called `key`.

    Raises:
        RegistryError: there is none; the message lists those that exist.
        ConfigError: a setting is unknown or cannot be used.
    """
    module = registry.find(FOLDER, key)
    try:
        return Strategy(key=key, settings=module.Settings(**settings), module=module)
    except ValidationError as error:
        problems = "; ".join(
            f"`{'.'.join(map(str, part['loc'])) or 'settings'}`: {part['msg']}" for part in error.errors(include_url=False)
        )
        known = ", ".join(module.Settings.model_fields) or "none"
        raise ConfigError(f"Strategy `{key}` cannot be set so: {problems}. Its settings: {known}.") from None


def parse(text: str) -> Strategy:
    """The strategy that a text such as `self-consistency(n=10)` means. Raises as `get`, and `ConfigError` where it cannot be read."""
    key, arguments = _split(text)
    strategy, rest = _with_settings(key, arguments)
    if rest:
        raise ConfigError(
            f"`{text[:120]}` has {', '.join(f'`{part[:60]}`' for part in rest)}, which is no setting. Settings read NAME=VALUE."
        )
    return strategy


def parse_with_model(text: str) -> tuple[Strategy, str]:
    """The strategy and the model's name that `strategy:tot(smollm2:support, beam=3)` means. Raises as `parse`."""
    key, arguments = _split(text.removeprefix(SCHEME))
    strategy, rest = _with_settings(key, arguments)
    if len(rest) != 1:
        raise ConfigError(f"`{text[:120]}` must name one model, such as `{SCHEME}{key}(smollm2)`; it names {len(rest)}.")
    return strategy, rest[0]


def _split(text: str) -> tuple[str, str]:
    found = split_name(text)
    if found is None:
        raise ConfigError(f"`{text[:120]}` is no strategy. Write a name, or a name with settings: `self-consistency(n=10)`.")
    return found


def _with_settings(key: str, arguments: str) -> tuple[Strategy, tuple[str, ...]]:
    """The strategy, and the arguments that are no settings."""
    settings, rest = read_settings(arguments)
    return get(key, **settings), rest
