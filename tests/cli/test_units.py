"""Times and sizes as they are written on the command line."""

from __future__ import annotations

import pytest
import typer

from foreword.cli._units import duration, size


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("90s", 90), ("2m", 120), ("1.5h", 5400), ("1h30m", 5400), ("1m30", 90), (" 2M ", 120), ("0.5", 0.5), (120.0, 120)],
)
def test_a_duration_is_seconds(text: object, seconds: float):
    assert duration(text) == seconds


@pytest.mark.parametrize("text", ["", "0", "0s", "-5", "2 weeks", "m", "1s2m", "nan", "inf", "1e5", "9" * 400])
def test_what_is_no_time_is_refused(text: str):
    with pytest.raises(typer.BadParameter, match=r"is no time above zero. Write 90s"):
        duration(text)


@pytest.mark.parametrize(("count", "text"), [(0, "0.0 kB"), (3048, "3.0 kB"), (99_999, "100.0 kB"), (1_250_000, "1.2 MB")])
def test_a_size_is_in_decimal_units(count: int, text: str):
    assert size(count) == text
