"""What a model's tokens cost on a day: one's own prices first, then the price list that the package genai-prices brings.

    table = PriceTable(own={"small": Price(machine_hour="0.4")})
    rates = table.rates("claude-sonnet-4-5", provider="anthropic", when=datetime.now(UTC))
    rates.charges(Consumed(input_tokens=1200, cache_read_tokens=1000, output_tokens=80))

Money is `Decimal` and exact: no figure is rounded before a sum is. A model that neither list has is unpriced, which is `None` and never 0.
The list is the one of the installed package; nothing is fetched.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, Literal

from foreword.cost.prices import MILLION, SECONDS_PER_HOUR, Price
from foreword.errors import ConfigError

Meter = Literal["input", "cache-read", "cache-write", "output", "reasoning", "request", "machine-second"]

_LISTED: Mapping[Meter, str] = {
    "input": "input_mtok",
    "cache-read": "cache_read_mtok",
    "cache-write": "cache_write_mtok",
    "output": "output_mtok",
    "reasoning": "output_reasoning_mtok",
    "request": "requests_kcount",
}
_PER: Mapping[Meter, Decimal] = {"request": Decimal(1000)}
"""How many units a listed price is for, where that is not a million."""
_MOST_KEPT = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Consumed:
    """What one call took, as its provider counts it.

    Attributes:
        input_tokens: of the whole prompt, those read from or written to the provider's cache included.
        output_tokens: of the answer, reasoning included.
        machine_seconds: of an own machine; None where that is not known.
        estimated: whether the counts were made from what was seen, as the provider told none.
    """

    input_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0
    machine_seconds: float | None = None
    estimated: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Charge:
    """One line of a bill: `quantity` of what `meter` counts, at `rate` each."""

    meter: Meter
    quantity: Decimal
    rate: Decimal

    @property
    def amount(self) -> Decimal:
        """Money."""
        return self.quantity * self.rate


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """Rates that hold for prompts of more than `above` tokens, for all of their tokens."""

    above: int
    rates: Mapping[Meter, Decimal]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """What each unit costs.

    Attributes:
        steps: ascending; the first is above -1, which is every prompt.
        source: where the figures are from: `own`, or the price list's name and version.
    """

    steps: tuple[Step, ...]
    currency: str
    source: str

    def charges(self, consumed: Consumed) -> tuple[Charge, ...] | None:
        """The lines of the bill, those of quantity 0 left out; None where something was consumed that has no rate."""
        rates = [step.rates for step in self.steps if consumed.input_tokens > step.above][-1]
        lines = []
        for meter, quantity in _quantities(consumed, rates).items():
            if quantity == 0:
                continue
            if meter not in rates:
                return None
            lines.append(Charge(meter=meter, quantity=quantity, rate=rates[meter]))
        if "machine-second" in rates and consumed.machine_seconds is None:
            return None
        return tuple(lines)


class PriceTable:
    """Rates by model."""

    def __init__(self, own: Mapping[str, Price] | None = None) -> None:
        """Args: own: by the model's name here; these go before every list."""
        self._own = {name: _own_rates(price) for name, price in (own or {}).items()}
        self._kept: dict[tuple[str, str | None], Rates | None] = {}

    def rates(self, model: str, *, provider: str | None, when: datetime, name: str | None = None) -> Rates | None:
        """The rates at a time; None where the model is in no list.

        Args:
            model: as its provider calls it.
            provider: as genai-prices calls it, such as `openai` or `anthropic`; None is an own machine, which no list has.
            name: what the model is called here, where that differs.
        """
        own = self._own.get(name or model)
        if own is not None or provider is None:
            return own
        key = (model, provider)
        if key not in self._kept:
            rates, lasting = _listed_rates(model, provider, when)
            if not lasting:
                return rates
            if len(self._kept) >= _MOST_KEPT:
                self._kept.clear()
            self._kept[key] = rates
        return self._kept[key]


def _quantities(consumed: Consumed, rates: Mapping[Meter, Decimal]) -> dict[Meter, Decimal]:
    """Tokens that a list has no rate of their own for are counted with what they are a part of, as their provider bills them."""
    read = consumed.cache_read_tokens if "cache-read" in rates else 0
    write = consumed.cache_write_tokens if "cache-write" in rates else 0
    reasoning = consumed.reasoning_tokens if "reasoning" in rates else 0
    counted: dict[Meter, Decimal] = {
        # Some count tokens of the cache beside those of the prompt, and not among them.
        "input": Decimal(max(0, consumed.input_tokens - read - write)),
        "cache-read": Decimal(read),
        "cache-write": Decimal(write),
        "output": Decimal(consumed.output_tokens - reasoning),
        "reasoning": Decimal(reasoning),
    }
    if not any(meter in rates for meter in counted):
        # An own machine alone: its tokens cost nothing but its time.
        counted = {}
    if "request" in rates:
        counted["request"] = Decimal(1)
    if "machine-second" in rates and consumed.machine_seconds is not None:
        counted["machine-second"] = Decimal(repr(consumed.machine_seconds))
    return counted


def _own_rates(price: Price) -> Rates:
    rates: dict[Meter, Decimal] = {}
    if price.input_per_million is not None and price.output_per_million is not None:
        rates["input"] = price.input_per_million / MILLION
        rates["output"] = price.output_per_million / MILLION
    if price.cached_per_million is not None:
        rates["cache-read"] = price.cached_per_million / MILLION
    if price.machine_hour is not None:
        # A third of a second's price has no end; what is paid by the hour is rounded far below what any sum shows.
        rates["machine-second"] = (price.machine_hour / SECONDS_PER_HOUR).quantize(Decimal("1e-18"))
    return Rates(steps=(Step(above=-1, rates=rates),), currency=price.currency, source="own")


def _listed_rates(model: str, provider: str, when: datetime) -> tuple[Rates | None, bool]:
    """The rates of the list, and whether they hold whenever they are asked for (some change by date or by time of day)."""
    try:
        import genai_prices
        from genai_prices import data_snapshot
    except ModuleNotFoundError as error:
        raise ConfigError("Prices of providers need the package `genai-prices`. Install it: pip install 'foreword[serve]'.") from error
    try:
        _, info = data_snapshot.get_snapshot().find_provider_model(model, None, provider, None)
    except LookupError:
        return None, True
    listed = info.get_prices(when)
    found: dict[Meter, Any] = {meter: value for meter, name in _LISTED.items() if (value := getattr(listed, name, None)) is not None}
    if not {"input", "output"} & set(found):
        return None, True
    starts = sorted({-1} | {tier.start for value in found.values() for tier in getattr(value, "tiers", ())})
    steps = tuple(Step(above=start, rates=_rates_above(start, found)) for start in starts)
    source = f"genai-prices {_version(genai_prices)}"
    return Rates(steps=steps, currency="USD", source=source), not isinstance(info.prices, list)


def _rates_above(start: int, listed: Mapping[Meter, Any]) -> dict[Meter, Decimal]:
    return {meter: _at(value, start) / _PER.get(meter, MILLION) for meter, value in listed.items()}


def _at(value: Any, start: int) -> Decimal:
    """A rate for prompts of more than `start` tokens."""
    if isinstance(value, Decimal):
        return value
    return next((tier.price for tier in reversed(value.tiers) if tier.start <= start), value.base)


def _version(package: Any) -> str:
    from importlib.metadata import version

    return version(package.__name__.replace("_", "-"))
