"""Strategies as models: `strategy:self-consistency(smollm2:support, n=10)` asks the model in the parentheses as often as need be.

What the server offers, what one request may take, which strategies are at work, and the end of all of them when the server stops.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any

from foreword.errors import ConfigError, Overloaded, RegistryError
from foreword.gateway.errors import Refusal, not_found
from foreword.gateway.metrics import Metrics
from foreword.gateway.strategy_model import StrategyModel
from foreword.gateway.wire import MOST_MODEL
from foreword.prompting import strategy
from foreword.prompting.model import AT_ONCE
from foreword.prompting.strategy import SCHEME, Budget, Resources, Solved, Strategy

CALLS, SECONDS = 64, 120.0
MOST_NUMBER = 10_000
"""In a strategy's settings: a million samples would take memory before the budget ends them."""
MOST_KEPT = 1_000
"""Names of models kept as they were read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """What strategies may take and use on a server.

    Attributes:
        budget: of one request.
        resources: what stands by for each strategy; examples come from the request's prompt.
        at_once: requests for strategies under way; a further one is told to come again.
        keep_alive_seconds: after so long without a word a stream says that it is still there.
    """

    budget: Budget = field(default_factory=lambda: Budget(calls=CALLS, seconds=SECONDS))
    resources: Resources = field(default_factory=Resources)
    at_once: int = 1024
    keep_alive_seconds: float = 10.0


OFFER = Offer()


class Strategies:
    """The strategies of one server. For one event loop."""

    def __init__(self, offer: Offer, metrics: Metrics) -> None:
        self.offer, self._metrics = offer, metrics
        self.room = asyncio.Semaphore(AT_ONCE)
        self._at_work: set[asyncio.Task[Solved]] = set()

    async def read(self, model: str) -> tuple[Strategy, str]:
        """The strategy, and the name of the model that it asks.

        Raises:
            Refusal: 404 where there is no such strategy, 400 where its settings cannot be used.
        """
        if len(model) > MOST_MODEL:
            raise not_found(f"No model's name here has more than {MOST_MODEL} characters.")
        try:
            # Looks into folders and loads a module when it is first asked for.
            return await asyncio.to_thread(_parsed, model)
        except RegistryError as error:
            raise not_found(str(error)) from None
        except ConfigError as error:
            raise Refusal(400, str(error), code="invalid_value", param="model") from None

    def begin(self, solving: Coroutine[Any, Any, Solved], *, key: str, label: str, model: StrategyModel) -> asyncio.Task[Solved]:
        """Sets a strategy to work, and counts it when it ends. The caller cancels it where nobody waits any more.

        Args:
            key: the strategy's name.
            label: the prefix's name, for metrics.

        Raises:
            Overloaded: too many are at work already.
        """
        if len(self._at_work) >= self.offer.at_once:
            solving.close()
            raise Overloaded(f"{len(self._at_work)} strategies are at work, which is all that may be. Come again later.", retry_after=5)
        task = asyncio.create_task(solving)
        self._at_work.add(task)
        task.add_done_callback(functools.partial(self._ended, key=key, label=label, model=model))
        return task

    def stop(self) -> None:
        """Ends all that are at work."""
        for task in self._at_work:
            task.cancel()

    def _ended(self, task: asyncio.Task[Solved], *, key: str, label: str, model: StrategyModel) -> None:
        self._at_work.discard(task)
        if task.cancelled():
            status = "cancelled"
        elif task.exception() is not None:
            status = "refused"
        else:
            solved = task.result()
            status, usage = solved.status, solved.usage
            self._metrics.answered(
                label=label, prompt_tokens=usage.prompt_tokens, completion_tokens=usage.completion_tokens, first_token_seconds=None
            )
        self._metrics.strategy(key=key, status=status, calls=model.calls)


def is_strategy(model: str) -> bool:
    """Whether a model's name asks for a strategy."""
    return model.startswith(SCHEME)


def names_over(base: str) -> list[str]:
    """The model's name of each strategy over the frozen model alone, with its default settings."""
    return [f"{SCHEME}{key}({base})" for key in strategy.names()]


@functools.lru_cache(maxsize=MOST_KEPT)
def _parsed(model: str) -> tuple[Strategy, str]:
    found, name = strategy.parse_with_model(model)
    large = next((key for key, value in found.settings if isinstance(value, int | float) and abs(value) > MOST_NUMBER), None)
    if large is not None:
        raise ConfigError(f"`{large}` of strategy `{found.key}` may be {MOST_NUMBER:,} at most on this server. Choose a smaller one.")
    return found, name
