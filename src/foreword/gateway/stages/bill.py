"""`bill`: what the request cost, line by line, to the ledger and to the client; and what the levers spared.

Every attempt is paid for, those that failed included, where its model says what it took. A price that nobody knows is told once for each
model, and makes the request unpriced: it is never counted as free.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from decimal import Decimal

from foreword.cost.ledger import Entry, Line, Saving, total
from foreword.cost.rates import Consumed, PriceTable
from foreword.gateway.passage import Attempt, Passage, Target, Versioned
from foreword.gateway.path_settings import AUTO, PathSettings
from foreword.gateway.stage import Next, Parts, Stage

UNPRICED = "unpriced"
ESTIMATED = " (estimated)"
"""Behind a price's source, where the model did not say what it took."""
_STAGES = {"judge": "check", "summary": "assemble"}
"""Which stage an attempt is paid for, where that is not `infer`."""

logger = logging.getLogger(__name__)


def make(parts: Parts) -> Stage:
    """The stage."""
    bills = Bills(parts.settings, parts.prices)
    alerted: set[str] = set()

    async def bill(passage: Passage) -> Next:
        if passage.billed:
            return Next.ON
        passage.billed = True
        passage.prefix = passage.prefix or _prefix(passage, parts.targets)
        bills.price(passage)
        _alert(passage, alerted)
        amount = total(passage.lines)
        passage.told["foreword-cost"] = UNPRICED if amount is None else format(amount, "f")
        if parts.ledger is not None:
            parts.ledger.record(entry_of(passage))
            if parts.settings.store.durable:
                await asyncio.to_thread(parts.ledger.flush)
        return Next.ON

    return bill


class Bills:
    """Prices by the configuration and the price list."""

    def __init__(self, settings: PathSettings, prices: PriceTable) -> None:
        self._settings, self._prices = settings, prices

    def price(self, passage: Passage) -> None:
        """Adds a line for every attempt, and what the cache or the chosen tier spared."""
        lines = [line for attempt in passage.attempts if (line := self.line(attempt, passage)) is not None]
        passage.lines.extend(lines)
        self._spare_by_route(passage, lines)
        if passage.spared is not None:
            self._spare_by_cache(passage, *passage.spared)
        passage.attempts.clear()

    def dearest(self, passage: Passage) -> Decimal | None:
        """What the tokens of a routed answer would have cost at the task type's last tier.

        None where the client chose the model, no model has answered, there is nothing to choose from, or nobody knows.
        """
        took = [attempt.consumed for attempt in passage.attempts if attempt.status == "answered" and attempt.why not in _STAGES]
        if passage.asked.model != AUTO or not took or took[-1] is None or len(passage.task.tiers) < 2:
            return None
        return self.cost(passage.task.tiers[-1], took[-1], passage)

    def _spare_by_cache(self, passage: Passage, model: str, consumed: Consumed) -> None:
        """What the answer would have cost anew, less what was paid all the same, such as a judge."""
        anew, paid = self.cost(model, consumed, passage), total(passage.lines)
        if anew is not None and paid is not None and anew > paid:
            passage.savings.append(Saving(lever="cache", amount=anew - paid))

    def _spare_by_route(self, passage: Passage, lines: list[Line]) -> None:
        """What beginning below the dearest tier spared; less than nothing where a cheaper tier was paid for in vain."""
        as_dear = len(lines) == 1 and lines[0].model == passage.task.tiers[-1]
        if as_dear or (dearest := self.dearest(passage)) is None:
            return
        paid = total([line for line in lines if line.stage == "infer"])
        if paid is not None and paid != dearest:
            passage.savings.append(Saving(lever="route", amount=dearest - paid))

    def line(self, attempt: Attempt, passage: Passage) -> Line | None:
        """What an attempt is paid; None where it took nothing."""
        consumed = attempt.consumed
        if consumed is None:
            return None
        stage = _STAGES.get(attempt.why, "infer")
        name = attempt.model.partition(":")[0]
        settings = self._settings.model(name)
        rates = self._prices.rates(settings.model, provider=settings.provider, when=passage.at, name=name)
        charges = None if rates is None else rates.charges(consumed)
        return Line(
            stage=stage,
            model=attempt.model,
            charges=charges,
            priced_by="" if rates is None else f"{rates.source}{ESTIMATED if consumed.estimated else ''}",
            consumed=_counts(consumed),
        )

    def cost(self, model: str, consumed: Consumed, passage: Passage) -> Decimal | None:
        """What a call of `model` would cost; None where nobody knows."""
        line = self.line(Attempt(model=model, why="first", status="answered", seconds=0.0, consumed=consumed), passage)
        return None if line is None else total([line])


def _prefix(passage: Passage, targets: Mapping[str, Target]) -> str:
    """The version of the prefix that answered, where it is known; else its name."""
    name, _, prefix = passage.model.partition(":")
    target = targets.get(name)
    return target.version(passage.model, passage.tenant) if prefix and isinstance(target, Versioned) else prefix


def entry_of(passage: Passage) -> Entry:
    """The ledger's entry of a passage that has ended."""
    return Entry(
        id=passage.id,
        at=passage.at,
        tenant=passage.tenant.name,
        user=passage.user,
        task_type=passage.task.name,
        asked_model=passage.asked.model,
        model=passage.model,
        prompt=passage.prompt,
        prefix=passage.prefix,
        status=passage.status,
        success=passage.success,
        score=passage.score,
        cache=passage.cache,
        escalated=passage.escalated,
        retries=passage.retries,
        fallbacks=passage.fallbacks,
        degraded=", ".join(passage.degraded),
        seconds=time.perf_counter() - passage.began,
        first_token_seconds=passage.first_token,
        lines=tuple(passage.lines),
        savings=tuple(passage.savings),
    )


def _alert(passage: Passage, alerted: set[str]) -> None:
    for line in passage.lines:
        if line.charges is None and line.model not in alerted:
            alerted.add(line.model)
            logger.warning("model %s is unpriced: give it a `price`, or a `provider` whose list has it", line.model)


def _counts(consumed: Consumed) -> tuple[tuple[str, float], ...]:
    counts = {
        "input": consumed.input_tokens,
        "cache-read": consumed.cache_read_tokens,
        "cache-write": consumed.cache_write_tokens,
        "output": consumed.output_tokens,
        "reasoning": consumed.reasoning_tokens,
    }
    return tuple((meter, float(count)) for meter, count in counts.items() if count)
