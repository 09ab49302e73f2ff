"""Words as terms that can be compared."""

from __future__ import annotations

import pytest

from foreword.compiling.terms import base_forms, stem, terms, words


def test_words_keep_hyphens_and_apostrophes_inside():
    assert words("The well-known “dog's dinner”, 2 years on!") == ["the", "well-known", "dog's", "dinner", "2", "years", "on"]
    assert words("STRASSE Straße _x_") == ["strasse", "strasse", "x"]


@pytest.mark.parametrize(
    ("said", "word"),
    [
        ("gates", "gate"),
        ("boxes", "box"),
        ("parties", "party"),
        ("stopped", "stop"),
        ("making", "make"),
        ("running", "run"),
        ("happiest", "happy"),
        ("larger", "large"),
        ("quickly", "quick"),
        ("dog's", "dog"),
        ("tried", "try"),
    ],
)
def test_an_inflection_may_be_of_its_word(said: str, word: str):
    assert base_forms(said)[0] == said and word in base_forms(said)


def test_short_words_have_no_suffix_to_lose():
    assert base_forms("is") == ("is",) and base_forms("red") == ("red",)


@pytest.mark.parametrize("forms", [("party", "parties"), ("horse", "horses"), ("make", "making"), ("stop", "stopped"), ("box", "boxes")])
def test_inflections_share_a_stem(forms: tuple[str, str]):
    assert stem(forms[0]) == stem(forms[1])


def test_words_without_meaning_are_no_terms():
    assert terms("What is the meaning of a gate?") == ["mean", "gat"]
