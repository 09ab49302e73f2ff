from __future__ import annotations

import math
from decimal import Decimal

import pytest

from foreword.evaluate import wording
from foreword.evaluate.row import Difference


@pytest.mark.parametrize(
    ("amount", "text"),
    [("0", "0"), ("12.3456", "12.35"), ("0.0000012345", "0.00000123"), ("0.5", "0.500"), ("1234", "1234.00")],
)
def test_money_is_never_in_exponent_form(amount: str, text: str) -> None:
    assert wording.money(Decimal(amount)) == text


def test_figures_are_short() -> None:
    assert [wording.figure(value) for value in (0.1234, 56.12, 123456.0, math.inf, math.nan)] == ["0.123", "56.1", "1.23e+05", "∞", "NaN"]
    assert [wording.seconds(value) for value in (0.0123, 1.26, 300)] == ["12 ms", "1.3 s", "5.0 min"]
    assert [wording.size(value) for value in (0, 12, 740_000, 538_000_000)] == ["–", "12 B", "740 kB", "538 MB"]


def test_a_difference_has_its_sign_and_how_likely_it_is() -> None:
    def told(value: float, p: float) -> str:
        return wording.difference(Difference(value=value, low=value, high=value, p_value=p, p_adjusted=p))

    assert (told(0.5, 0.001), told(-3.0, 0.25), wording.difference(None)) == ("+0.500 (p < .01)", "−3.0 (p = .25)", "reference")


def test_html_is_escaped_in_attributes_too() -> None:
    assert wording.escape("<a href=\"'x'\">") == "&lt;a href=&quot;&#x27;x&#x27;&quot;&gt;"
