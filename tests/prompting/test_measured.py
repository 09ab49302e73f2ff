"""Cost per success, and two prompts on the same rows."""

from __future__ import annotations

from decimal import Decimal

from foreword.prompting.judging import Judged
from foreword.prompting.measured import compare, measure
from foreword.types import Usage


def judged(success: bool, cost: str | None = "0.01", tokens: int = 10) -> Judged:
    usage = Usage(prompt_tokens=tokens - 1, completion_tokens=1)
    return Judged(success=success, answer="", calls=1, usage=usage, cost=None if cost is None else Decimal(cost))


def test_failures_are_paid_for_too():
    found = measure([judged(True), judged(False), judged(False), judged(True)])
    assert found.cost == Decimal("0.04") and found.cost_per_success == Decimal("0.02") and found.tokens_per_success == 20
    mended = measure([judged(True), judged(False)], failure_cost=Decimal("0.1"))
    assert mended.cost_per_success == Decimal("0.12") and mended.dearness == 0.12


def test_without_a_price_tokens_stand_for_money():
    found = measure([judged(True, None), judged(False)], failure_cost=Decimal(1))
    assert found.cost is None and found.cost_per_success is None and found.dearness == 20
    assert found.told()["cost_per_success"] is None


def test_no_success_has_no_price():
    found = measure([judged(False)])
    assert found.cost_per_success is None and found.tokens_per_success is None and found.dearness == float("inf")


def test_as_json():
    told = compare([judged(False), judged(True)], [judged(True, "0.010"), judged(True)]).told()
    assert told["difference"] == 0.5 and told["after"]["cost_per_success"] == "0.01" and told["before"]["successes"] == 1
