"""What counts as the wanted form, and what does not; the worst patterns on long answers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foreword.errors import ConfigError
from foreword.gateway.checking.form import MOST_CHARACTERS, forms, json_form, label_form, plain, regex_form
from foreword.gateway.path_settings import CheckSettings

SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string", "minLength": 1}, "days": {"type": "integer", "minimum": 1}},
    "required": ["city"],
    "additionalProperties": False,
}


@pytest.mark.parametrize("answer", ['{"city": "Oslo"}', ' \n{"city":"Oslo","days":3}\n', '{"city": "Osl\\u00f8"}'])
def test_json_that_fits_its_schema_holds(answer: str) -> None:
    assert json_form(SCHEMA)(answer, 0)


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "Oslo",
        '{"city": ""}',
        '{"city": "Oslo", "days": 0}',
        '{"city": "Oslo", "more": 1}',
        '{"city": "Oslo"',
        'Here it is: {"city": "Oslo"}',
        '```json\n{"city": "Oslo"}\n```',
        '{"city": "Oslo"} {"city": "Oslo"}',
        "[" * 100_000,
        '{"city": "\ud800"}',
    ],
)
def test_anything_else_does_not(answer: str) -> None:
    assert not json_form(SCHEMA)(answer, 0)


def test_a_schema_that_refers_elsewhere_is_refused_and_nothing_is_fetched() -> None:
    with pytest.raises(ConfigError, match="json_schema"):
        json_form({"$ref": "http://127.0.0.1:9/schema.json"})


def test_a_schema_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigError, match="json_schema"):
        json_form({"type": "sculpture"})


@pytest.mark.parametrize(
    ("pattern", "answer", "holds"),
    [
        (r"\d{3}-\d{4}", " 555-1234\n", True),
        (r"\d{3}-\d{4}", "Call 555-1234", False),
        (r"(?i)yes|no", "YES", True),
        (r"(?i)yes|no", "yes, no", False),
        ("a|b", "ab", False),
        (".*", "two\nlines", False),
        ("(?s).*", "two\nlines", True),
    ],
)
def test_an_expression_must_match_the_whole_answer(pattern: str, answer: str, holds: bool) -> None:
    assert regex_form(pattern)(answer, 0) is holds


def test_a_pattern_that_hangs_a_backtracking_engine_ends_at_once() -> None:
    assert not regex_form("(a+)+b")("a" * 50_000, 0)
    assert not regex_form("(a|a)*b")("a" * 50_000, 0)


def test_what_needs_backtracking_is_refused_when_it_is_set_up() -> None:
    for pattern in (r"(a)\1", "(?=a)a"):
        with pytest.raises(ConfigError, match="Look-around"):
            regex_form(pattern)


def test_an_answer_beyond_all_measure_has_no_form() -> None:
    assert not regex_form("a*")("a" * (MOST_CHARACTERS + 1), 0)
    assert not json_form({"type": "string"})(f'"{"a" * MOST_CHARACTERS}"', 0)


@pytest.mark.parametrize("answer", ["billing", "Billing.", " **BILLING** ", '"billing"', "billing\n"])
def test_a_label_is_one_in_any_case_and_with_anything_around_it(answer: str) -> None:
    assert label_form(("billing", "log in"))(answer, 0)


@pytest.mark.parametrize("answer", ["", "...", "bill", "billing or login", "It is billing.", "billing " * 100])
def test_other_words_are_no_label(answer: str) -> None:
    assert not label_form(("billing", "log in"))(answer, 0)


def test_a_label_without_letters_is_refused() -> None:
    with pytest.raises(ConfigError, match="labels"):
        label_form(("+", "-"))


@given(st.text(max_size=60))
def test_a_plain_label_stays_what_it_is(text: str) -> None:
    assert plain(f' "{plain(text)}"! ') == plain(plain(text))


@pytest.mark.parametrize(
    ("answer", "sources", "holds"),
    [
        ("It is so [1].", 2, True),
        ("It is so [1][2].", 2, True),
        ("It is so.", 2, False),
        ("It is so [3].", 2, False),
        ("It is so [1] and [9].", 2, False),
        ("It is so [0].", 2, False),
        ("It is so [7].", 0, True),
        ("It is so.", 0, False),
    ],
)
def test_a_citation_names_a_passage_that_there_is(answer: str, sources: int, holds: bool) -> None:
    ((name, form),) = forms(CheckSettings(citation=True))
    assert name == "citation"
    assert form(answer, sources) is holds


def test_all_that_is_asked_for_is_there() -> None:
    settings = CheckSettings(json_schema=SCHEMA, regex="a", labels=("yes", "no"), citation=True)
    assert [name for name, _ in forms(settings)] == ["json_schema", "regex", "labels", "citation"]
    assert forms(CheckSettings()) == ()
