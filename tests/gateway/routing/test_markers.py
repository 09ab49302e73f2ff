from __future__ import annotations

import numpy as np
import pytest

from foreword.gateway.routing.markers import NAMES, markers


def at(text: str, name: str) -> float:
    return float(markers(text)[NAMES.index(name)])


def test_there_is_a_name_for_each():
    assert len(markers("What is this?")) == len(NAMES) == len(set(NAMES))


def test_kinds_are_counted():
    assert at("12 + 34 = x", "count '0123456789'") == pytest.approx(np.log1p(4))
    assert at("no figures", "count '0123456789'") == 0
    assert at("a $x^2$ b", "count '\\\\$'") == pytest.approx(np.log1p(2))
    assert at("größer", "count of no ASCII") == pytest.approx(np.log1p(4))
    assert at("def f():\n    return 1", "phrase 'def '") == pytest.approx(np.log1p(1))
    assert at("abc", "length") == pytest.approx(np.log1p(3))


def test_shares_do_not_grow_with_the_text():
    assert at("a1" * 50, "share '0123456789'") == pytest.approx(at("a1" * 400, "share '0123456789'"), rel=0.02)


def test_the_whole_length_of_a_long_text_counts():
    short, long = markers("a " * 2_000), markers("a " * 200_000)
    assert long[0] > short[0]
    np.testing.assert_allclose(long[1:], short[1:])


@pytest.mark.parametrize("text", ["", " ", "\0", "\ud800", "𝔘" * 3000, "\n" * 10_000])
def test_any_text_has_finite_markers(text: str):
    assert np.isfinite(markers(text)).all()
