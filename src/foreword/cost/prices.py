"""What a request costs, and what a success costs. Money is `Decimal`; an unknown price is `None`, never 0.

A price is either per token (what a provider bills) or per machine-hour (what an own machine costs); both together
are added. Cost per success is the figure that judges a context: everything that was paid, the failures
included, divided by the requests that did what they should.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from foreword.types import Usage

MILLION = Decimal(1_000_000)
SECONDS_PER_HOUR = Decimal(3600)

Amount = Annotated[Decimal, Field(ge=0, allow_inf_nan=False)]


class Price(BaseModel):
    """A price list for one model or machine.

    Attributes:
        input_per_million: money for a million prompt tokens.
        output_per_million: money for a million generated tokens.
        cached_per_million: money for a million prefix positions; when absent they are billed as input, which is
            what a provider without a cache discount does.
        machine_hour: money for an hour of the machine that serves.
        currency: ISO 4217 code, shown and never converted.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    input_per_million: Amount | None = None
    output_per_million: Amount | None = None
    cached_per_million: Amount | None = None
    machine_hour: Amount | None = None
    currency: str = Field(default="USD", pattern=r"^[A-Z]{3}$")

    @field_validator("input_per_million", "output_per_million", "cached_per_million", "machine_hour", mode="before")
    @classmethod
    def _no_float_dust(cls, value: object) -> object:
        """A float is read as it is written: 0.1 is Decimal("0.1"), not its binary neighbour."""
        return repr(value) if isinstance(value, float) else value

    @model_validator(mode="after")
    def _something_is_priced(self) -> Price:
        if self.machine_hour is None and self.input_per_million is None and self.output_per_million is None:
            raise ValueError("no price given: set `machine_hour`, or `input_per_million` and `output_per_million`")
        if (self.input_per_million is None) != (self.output_per_million is None):
            missing = "output_per_million" if self.output_per_million is None else "input_per_million"
            raise ValueError(f"`{missing}` is missing: a token price needs both; write 0 if it is free")
        if self.cached_per_million is not None and self.input_per_million is None:
            raise ValueError("`cached_per_million` is given without `input_per_million` and `output_per_million`")
        return self

    @property
    def needs_seconds(self) -> bool:
        """Whether machine time is part of the price."""
        return self.machine_hour is not None


def cost_per_request(price: Price | None, usage: Usage, seconds: float | None = None) -> Decimal | None:
    """Money for one request.

    Args:
        price: the price list, or None when nobody gave one.
        usage: tokens and positions of the request.
        seconds: machine seconds the request took; needed when the price is per machine-hour.

    Returns:
        None when the price, or a quantity that it needs, is unknown.
    """
    if price is None or (price.needs_seconds and seconds is None):
        return None
    return token_cost(price, usage) + (Decimal(0) if seconds is None else machine_cost(price, seconds) or Decimal(0))


def token_cost(price: Price, usage: Usage) -> Decimal:
    """Money for a request's tokens; 0 where the price is per machine-hour alone."""
    if price.input_per_million is None or price.output_per_million is None:
        return Decimal(0)
    cached_rate = price.input_per_million if price.cached_per_million is None else price.cached_per_million
    total = (
        price.input_per_million * usage.prompt_tokens
        + price.output_per_million * usage.completion_tokens
        + cached_rate * usage.prefix_positions
    )
    return total / MILLION


def machine_cost(price: Price | None, seconds: float) -> Decimal | None:
    """Money for machine time, such as a training run; None when no machine-hour is priced."""
    if price is None or price.machine_hour is None:
        return None
    return price.machine_hour * Decimal(str(seconds)) / SECONDS_PER_HOUR


def cost_per_success(total_cost: Decimal | None, successes: int) -> Decimal | None:
    """Money for one success: all that was paid, over the requests that succeeded.

    Returns:
        None when the total is unknown or nothing succeeded: no sum of money buys a success then.
    """
    if total_cost is None or successes <= 0:
        return None
    return total_cost / successes


def seconds_per_success(total_seconds: float, successes: int) -> float | None:
    """Machine seconds for one success; what is shown while nobody has named a price."""
    return None if successes <= 0 else total_seconds / successes
