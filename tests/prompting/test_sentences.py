"""Texts in sentences: joined they are the text again, and what is Jinja is never cut."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foreword.prompting import sentences


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("One. Two! Three?", ["One. ", "Two! ", "Three?"]),
        ("Use a unit, e.g. metres. Ask Dr. Bell.", ["Use a unit, e.g. metres. ", "Ask Dr. Bell."]),
        ("Rules:\n- one\n- two\n\nEnd", ["Rules:\n", "- one\n", "- two\n\n", "End"]),
        ("Say {{ a. b }} now. Then.", ["Say {{ a. b }} now. ", "Then."]),
        ("{% if a %}Yes. No.{% endif %} Then. End", ["{% if a %}Yes. No.{% endif %} Then. ", "End"]),
        ("One line\nof a paragraph.", ["One line\nof a paragraph."]),
        ("", []),
    ],
)
def test_split(text: str, pieces: list[str]):
    assert sentences.split(text) == pieces


@given(st.text(alphabet="aB .!?\n{}%-:1", max_size=60))
def test_nothing_is_lost(text: str):
    assert "".join(sentences.split(text)) == text
    assert "".join(part for _, part in sentences.literal_parts(text)) == text


def test_without():
    pieces = sentences.split("One. Two. Three.")
    assert [sentences.without(pieces, index) for index in range(3)] == ["Two. Three.", "One. Three.", "One. Two."]


@pytest.mark.parametrize(
    ("long", "short"),
    [
        ("Please answer carefully with the label only. ", "Answer with the label only. "),
        ("You should always reply (in English) with one word.", "Reply with one word."),
        ("Please, {{ name }}.", "Please, {{ name }}."),
        ("Please.", "Please."),
        ("Answer now.", "Answer now."),
    ],
)
def test_shortened(long: str, short: str):
    assert sentences.shortened(long) == short


def test_parts_keep_nested_blocks_whole():
    block = "{% if a %}{% if b %}x{% endif %} y{% endif %}"
    assert sentences.literal_parts(f"A {block} B {{{{ c }}}}") == [(False, "A "), (True, block), (False, " B "), (True, "{{ c }}")]
