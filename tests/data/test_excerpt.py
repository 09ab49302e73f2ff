"""What is shown of a text is short and harmless."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from foreword.data.excerpt import excerpt


def test_one_line_without_escapes():
    shown = excerpt("a\x1b[31m\nb\t" + "c" * 500)
    assert shown.startswith("a [31m b ccc") and shown.endswith("c…") and len(shown) == 72


def test_a_short_text_stays():
    assert excerpt("Where is my card?") == "Where is my card?"


@given(st.text(max_size=200), st.integers(2, 80))
def test_always_printable_and_within_the_width(text: str, width: int):
    assert excerpt(text, width).isprintable() and len(excerpt(text, width)) <= width
