"""Prices: exact money, no unknown turned into 0."""

from __future__ import annotations

import subprocess
import sys
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from foreword.cost.prices import Price, cost_per_request, cost_per_success, machine_cost, seconds_per_success
from foreword.types import Usage

money = st.decimals(min_value=0, max_value=10_000, places=4, allow_nan=False, allow_infinity=False)
count = st.integers(min_value=0, max_value=10_000_000)
usages = st.builds(Usage, prompt_tokens=count, completion_tokens=count, prefix_positions=count)


def test_a_token_price_by_hand():
    price = Price(input_per_million=Decimal(2), output_per_million=Decimal(10), cached_per_million=Decimal("0.5"))
    usage = Usage(prompt_tokens=100, completion_tokens=20, prefix_positions=32)
    assert cost_per_request(price, usage) == Decimal("0.000416")


def test_prefix_positions_are_billed_as_input_unless_priced_apart():
    price = Price(input_per_million=Decimal(2), output_per_million=Decimal(10))
    with_prefix = cost_per_request(price, Usage(prompt_tokens=68, completion_tokens=20, prefix_positions=32))
    as_text = cost_per_request(price, Usage(prompt_tokens=100, completion_tokens=20))
    assert with_prefix == as_text


def test_a_machine_hour_by_hand():
    price = Price(machine_hour=Decimal("3.60"))
    assert cost_per_request(price, Usage(prompt_tokens=1, completion_tokens=1), seconds=2.0) == Decimal("0.002")
    assert machine_cost(price, 1800) == Decimal("1.8")


def test_unknown_stays_unknown():
    usage = Usage(prompt_tokens=5, completion_tokens=5)
    assert cost_per_request(None, usage, seconds=1.0) is None
    assert cost_per_request(Price(machine_hour=Decimal(1)), usage) is None, "machine time is not known"
    assert machine_cost(Price(input_per_million=1, output_per_million=1), 10) is None
    assert machine_cost(None, 10) is None
    assert cost_per_success(None, 3) is None


def test_no_success_has_no_price():
    assert cost_per_success(Decimal(5), 0) is None
    assert seconds_per_success(5.0, 0) is None
    assert seconds_per_success(6.0, 3) == 2.0


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({}, "no price given"),
        ({"input_per_million": 1}, "output_per_million"),
        ({"output_per_million": 1}, "input_per_million"),
        ({"machine_hour": 1, "cached_per_million": 1}, "cached_per_million"),
        ({"machine_hour": -1}, "greater than or equal to 0"),
        ({"machine_hour": float("nan")}, "machine_hour"),
        ({"machine_hour": float("inf")}, "machine_hour"),
        ({"machine_hour": 1, "currency": "dollars"}, "currency"),
        ({"machine_hours": 1}, "Extra inputs"),
    ],
)
def test_a_price_that_cannot_be_meant_is_refused(fields, says):
    with pytest.raises(ValidationError, match=says):
        Price(**fields)


def test_a_float_is_read_as_written():
    assert Price(machine_hour=0.1).machine_hour == Decimal("0.1")


@given(price=st.builds(Price, input_per_million=money, output_per_million=money, cached_per_million=money), a=usages, b=usages)
def test_cost_adds_up_over_requests(price, a, b):
    both = Usage(
        prompt_tokens=a.prompt_tokens + b.prompt_tokens,
        completion_tokens=a.completion_tokens + b.completion_tokens,
        prefix_positions=a.prefix_positions + b.prefix_positions,
    )
    parts = [cost_per_request(price, usage) for usage in (a, b)]
    assert None not in parts
    assert sum(parts) == cost_per_request(price, both)


@given(price=st.builds(Price, input_per_million=money, output_per_million=money), usage=usages, seconds=st.floats(0, 1e6))
def test_a_token_price_ignores_time_and_is_never_negative(price, usage, seconds):
    cost = cost_per_request(price, usage, seconds)
    assert cost == cost_per_request(price, usage)
    assert cost is not None and cost >= 0


@given(total=money, successes=st.integers(1, 10_000))
def test_cost_per_success_gives_back_the_total(total, successes):
    each = cost_per_success(total, successes)
    assert each is not None
    assert abs(each * successes - total) < Decimal("1e-15")


@given(rate=money, seconds=st.floats(0, 1e6), more=st.floats(0, 1e6))
def test_machine_cost_grows_with_time(rate, seconds, more):
    price = Price(machine_hour=rate)
    less_time, more_time = machine_cost(price, seconds), machine_cost(price, seconds + more)
    assert less_time is not None and more_time is not None and more_time >= less_time


def test_prices_load_no_torch():
    code = "import sys, foreword.cost.prices; sys.exit(any(m in sys.modules for m in ('torch', 'transformers')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
