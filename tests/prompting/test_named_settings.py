"""Names with settings, read and written."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foreword.prompting.named_settings import read_settings, split_list, split_name, written


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("tot", ("tot", "")),
        (" tot(beam=3) ", ("tot", "beam=3")),
        ("tot()", ("tot", "")),
        ('role(persona="a, b)")', ("role", 'persona="a, b)"')),
        ("Tot", None),
        ("tot(beam=3", None),
        ("", None),
    ],
)
def test_a_name_and_what_stands_in_its_parentheses(text: str, found: tuple[str, str] | None) -> None:
    assert split_name(text) == found


def test_lists() -> None:
    assert split_list('cot, self-consistency(n=3, batch=1) ,role(persona="a, b)"),') == (
        "cot",
        "self-consistency(n=3, batch=1)",
        'role(persona="a, b)")',
    )
    assert split_list(" , ") == ()


def test_settings_are_json_where_they_can_be_and_the_rest_is_told() -> None:
    settings, rest = read_settings('most-rows=3, path=shop.db, hosts=["a", "b"], quiet=true, smollm2:support, =5')
    assert settings == {"most_rows": 3, "path": "shop.db", "hosts": ["a", "b"], "quiet": True}
    assert rest == ("smollm2:support", "=5")


@given(st.one_of(st.text(), st.integers(), st.booleans(), st.none(), st.lists(st.text())))
def test_what_is_written_is_read_again(value: Any) -> None:
    assert read_settings(f"name={written(value)}, other=1") == ({"name": value, "other": 1}, ())
