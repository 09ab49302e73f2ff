"""Rates: one's own first, then the list, which is followed to the last digit."""

from datetime import UTC, datetime
from decimal import Decimal

import pytest
from genai_prices import Usage, calc_price, data_snapshot

from foreword.cost.prices import Price
from foreword.cost.rates import Consumed, PriceTable

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)


def amount(charges) -> Decimal:
    assert charges is not None
    return sum((charge.amount for charge in charges), Decimal(0))


def test_every_model_of_the_list_costs_what_the_list_itself_says():
    table, compared = PriceTable(), 0
    for provider in data_snapshot.get_snapshot().providers:
        for model in provider.models:
            rates = table.rates(model.id, provider=provider.id, when=NOW)
            for tokens in (1_000, 199_999, 200_000, 200_001):
                consumed = Consumed(
                    input_tokens=tokens, cache_read_tokens=300, cache_write_tokens=70, output_tokens=200, reasoning_tokens=50
                )
                charges = None if rates is None else rates.charges(consumed)
                if charges is None:
                    continue
                usage = Usage(
                    input_tokens=tokens, cache_read_tokens=300, cache_write_tokens=70, output_tokens=200, output_reasoning_tokens=50
                )
                wanted = calc_price(usage, model_ref=model.id, provider_id=provider.id, genai_request_timestamp=NOW)
                assert amount(charges) == wanted.total_price, (provider.id, model.id, tokens)
                compared += 1
    assert compared > 4_000


def test_ones_own_price_goes_before_the_list():
    table = PriceTable({"gpt-4o": Price(input_per_million=Decimal(1), output_per_million=Decimal(2))})
    rates = table.rates("gpt-4o", provider="openai", when=NOW)
    assert rates is not None and rates.source == "own"
    assert amount(rates.charges(Consumed(input_tokens=10, output_tokens=10))) == Decimal("0.00003")


def test_a_prefix_is_paid_as_a_read_of_the_cache_where_that_has_a_price():
    price = Price(input_per_million=Decimal(1), output_per_million=Decimal(2), cached_per_million=Decimal("0.1"))
    rates = PriceTable({"small": price}).rates("small", provider=None, when=NOW)
    assert rates is not None
    consumed = Consumed(input_tokens=1_000_000, cache_read_tokens=600_000)
    assert amount(rates.charges(consumed)) == Decimal("0.46")


def test_tokens_without_a_rate_of_their_own_are_paid_with_the_rest():
    rates = PriceTable({"small": Price(input_per_million=Decimal(1), output_per_million=Decimal(2))}).rates(
        "small", provider=None, when=NOW
    )
    assert rates is not None
    consumed = Consumed(input_tokens=1_000_000, cache_read_tokens=600_000, output_tokens=1_000_000, reasoning_tokens=900_000)
    assert amount(rates.charges(consumed)) == Decimal(3)


def test_an_own_machine_is_paid_by_its_time():
    rates = PriceTable({"small": Price(machine_hour=Decimal("3.6"))}).rates("small", provider=None, when=NOW)
    assert rates is not None
    assert amount(rates.charges(Consumed(input_tokens=100, output_tokens=100, machine_seconds=2.5))) == Decimal("0.0025")


def test_a_machine_whose_time_is_not_known_is_unpriced():
    rates = PriceTable({"small": Price(machine_hour=Decimal("3.6"))}).rates("small", provider=None, when=NOW)
    assert rates is not None
    assert rates.charges(Consumed(input_tokens=100, output_tokens=100)) is None


@pytest.mark.parametrize(("model", "provider"), [("no-such-model", "openai"), ("gpt-4o", "no-such-provider"), ("small", None)])
def test_what_is_in_no_list_has_no_rates(model, provider):
    assert PriceTable().rates(model, provider=provider, when=NOW) is None


def test_a_price_that_changed_is_that_of_its_day():
    changed = [
        (provider.id, model.id, step.constraint.start_date)
        for provider in data_snapshot.get_snapshot().providers
        for model in provider.models
        if isinstance(model.prices, list)
        for step in model.prices
        if step.constraint is not None and hasattr(step.constraint, "start_date")
    ]
    assert changed
    table, differing = PriceTable(), 0
    for provider, model, day in changed:
        start = datetime(day.year, day.month, day.day, tzinfo=UTC)
        before, after = (table.rates(model, provider=provider, when=start.replace(year=year)) for year in (start.year - 1, start.year + 1))
        differing += before != after
    assert differing


def test_more_read_from_a_cache_than_the_prompt_has_is_no_negative_charge():
    rates = PriceTable().rates("gpt-4o", provider="openai", when=NOW)
    assert rates is not None
    charges = rates.charges(Consumed(input_tokens=10, cache_read_tokens=100))
    assert charges is not None and all(charge.quantity > 0 for charge in charges)
