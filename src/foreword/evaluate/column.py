"""The columns of a comparison's table: what each is called, what it means, its text and the number that it sorts by.

A table with strategies in it shows how often the model was asked, what a perfect choice among the answers would reach, and how rows ended;
the columns of training go where nothing was trained.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from foreword.evaluate.comparison import Comparison
from foreword.evaluate.row import Estimate, Measured
from foreword.evaluate.wording import UNKNOWN, count, difference, figure, money, seconds, size


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One column: its title, what it means, the cell's text, and the number that it sorts by (None sorts last)."""

    title: str
    meaning: str
    text: Callable[[Measured], str]
    number: Callable[[Measured], float | None]


def columns(comparison: Comparison) -> tuple[Column, ...]:
    """The columns after the contender's name, in order."""
    if not any(row.strategy for row in comparison.rows):
        return (*_quality(comparison), *_cost(comparison)[-1:], _positions(), _latency(), *_training(comparison), _memory())
    trained = any(row.measured is not None and row.measured.trained_parameters for row in comparison.rows)
    return (
        *_quality(comparison),
        *_asking(),
        *_cost(comparison),
        _latency(),
        *(_training(comparison) if trained else ()),
        _memory(),
    )


def _quality(comparison: Comparison) -> tuple[Column, ...]:
    return (
        Column(
            title=comparison.primary,
            meaning="Primary score with its 95 % bootstrap interval.",
            text=lambda row: f"{figure(row.quality.value)} [{figure(row.quality.low)}, {figure(row.quality.high)}]",
            number=lambda row: row.quality.value,
        ),
        Column(
            title=f"vs {comparison.reference or UNKNOWN}",
            meaning="Difference to the reference on the same rows, with the p-value of a paired bootstrap, Holm-adjusted.",
            text=lambda row: difference(row.against_reference),
            number=lambda row: None if row.against_reference is None else row.against_reference.value,
        ),
        Column(
            title="success",
            meaning=f"Share of dev rows with {comparison.success_rule}, with its 95 % Wilson interval.",
            text=lambda row: share(row.success_rate),
            number=lambda row: row.success_rate.value,
        ),
    )


def _asking() -> tuple[Column, ...]:
    return (
        Column(
            title="first",
            meaning="Share of dev rows whose first answer alone is a success.",
            text=lambda row: f"{row.first_answer.value:.0%}",
            number=lambda row: row.first_answer.value,
        ),
        Column(
            title="any of k",
            meaning="Share of dev rows where any answer that came up is a success; k is the mean number of answers.",
            text=_any_of_k,
            number=lambda row: row.any_of_k.value,
        ),
        Column(
            title="calls",
            meaning="Mean calls of the model per request.",
            text=lambda row: f"{row.calls:.3g}",
            number=lambda row: row.calls,
        ),
        Column(
            title="tokens",
            meaning="Mean tokens per request, all calls together: of prompts + of answers.",
            text=_tokens,
            number=lambda row: row.tokens,
        ),
        Column(
            title="ended",
            meaning="How the dev rows ended: with an answer, with the budget spent, or failed.",
            text=ended,
            number=lambda row: None if row.asking is None else row.asking.statuses.get("answered", 0),
        ),
    )


def _cost(comparison: Comparison) -> tuple[Column, ...]:
    priced = comparison.price is not None
    unit = "machine seconds" if comparison.price is None else comparison.price.currency
    return (
        Column(
            title="cost",
            meaning=f"In {unit}, mean per request.",
            text=lambda row: request_cost(row, priced=priced),
            number=lambda row: _request_cost_number(row, priced=priced),
        ),
        Column(
            title="cost/success",
            meaning=f"In {unit}: all requests are paid for, only successes count. {UNKNOWN} where nothing succeeded.",
            text=lambda row: cost(row, priced=priced),
            number=lambda row: cost_number(row, priced=priced),
        ),
    )


def _positions() -> Column:
    return Column(
        title="positions",
        meaning="Mean positions attended before the first answer token: prefix + prompt tokens.",
        text=lambda row: f"{row.prompt_positions:.0f}" + (f" ({row.prefix_positions} prefix)" if row.prefix_positions else ""),
        number=lambda row: row.prompt_positions,
    )


def _latency() -> Column:
    return Column(
        title="latency",
        meaning="Median wall time of a single request.",
        text=lambda row: seconds(row.latency_seconds),
        number=lambda row: row.latency_seconds,
    )


def _training(comparison: Comparison) -> tuple[Column, ...]:
    return (
        Column(
            title="trained",
            meaning="Numbers that training was free to change.",
            text=lambda row: count(row.trained_parameters),
            number=lambda row: row.trained_parameters,
        ),
        Column(
            title="artifact",
            meaning="What has to be kept per task.",
            text=lambda row: size(row.artifact_bytes),
            number=lambda row: row.artifact_bytes,
        ),
        Column(
            title="training",
            meaning=f"Training time, {comparison.clock} clock; the budget was {seconds(comparison.budget_seconds)}.",
            text=lambda row: seconds(row.training_seconds) if row.trained_parameters else UNKNOWN,
            number=lambda row: row.training_seconds,
        ),
    )


def _memory() -> Column:
    return Column(
        title="memory",
        meaning="Highest memory of the contender's process, training and answering.",
        text=lambda row: size(row.peak_memory_bytes),
        number=lambda row: row.peak_memory_bytes,
    )


def share(rate: Estimate) -> str:
    """A share with its interval."""
    return f"{rate.value:.0%} [{rate.low:.0%}, {rate.high:.0%}]"


def ended(row: Measured) -> str:
    """How the rows ended; nothing but `all answered` where all did."""
    if row.asking is None:
        return UNKNOWN
    statuses = row.asking.statuses
    if set(statuses) == {"answered"}:
        return "all answered"
    words = {"answered": "answered", "budget": "out of budget", "failed": "failed"}
    return ", ".join(f"{statuses[status]} {word}" for status, word in words.items() if status in statuses)


def cost(row: Measured, *, priced: bool) -> str:
    """Money per success where a price was given, else machine seconds."""
    if priced:
        return UNKNOWN if row.cost_per_success is None else money(row.cost_per_success)
    return UNKNOWN if row.machine_seconds_per_success is None else seconds(row.machine_seconds_per_success)


def request_cost(row: Measured, *, priced: bool) -> str:
    """Money per request where a price was given, else machine seconds."""
    if priced:
        return UNKNOWN if row.cost_per_request is None else money(row.cost_per_request)
    return seconds(row.machine_seconds_per_request)


def cost_number(row: Measured, *, priced: bool) -> float | None:
    """What `cost` shows, as a number; None where nothing succeeded or a price is not known."""
    if not priced:
        return row.machine_seconds_per_success
    return None if row.cost_per_success is None else float(row.cost_per_success)


def _request_cost_number(row: Measured, *, priced: bool) -> float | None:
    if not priced:
        return row.machine_seconds_per_request
    return None if row.cost_per_request is None else float(row.cost_per_request)


def _any_of_k(row: Measured) -> str:
    several = row.asking is not None and row.asking.answers > 1
    return f"{row.any_of_k.value:.0%} of {row.asking.answers:.3g}" if several and row.asking else f"{row.any_of_k.value:.0%}"


def _tokens(row: Measured) -> str:
    prefix = f" ({row.prefix_positions} prefix)" if row.prefix_positions else ""
    return f"{row.prompt_tokens:,.0f} + {row.completion_tokens:,.0f}{prefix}"
