"""Tools by name, and as text."""

from __future__ import annotations

import pytest

from foreword.agent import tool
from foreword.errors import ConfigError, RegistryError


def test_the_tools_that_come_with_foreword_are_found() -> None:
    assert set(tool.names()) >= {"calculator", "http-get", "python", "retrieval", "sql"}
    assert tool.get("calculator").name == "calculator"


def test_a_tool_is_read_from_text() -> None:
    made = tool.parse('http-get(hosts=["example.org", "*.example.com"], allow-http=true, seconds=3)')
    assert "example.org, *.example.com" in made.description
    assert made.seconds == 4
    assert tool.parse("http-get(hosts=example.org)").name == "http-get"
    assert tool.parse("python(memory-mb=128)").name == "python"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Calculator!", "is no tool"),
        ("calculator(6 * 7)", "is no setting"),
        ("calculator(digits=3)", "cannot be set so"),
        ("sql", "`path`"),
        ("sql(path=shop.db, most-rows=many)", "`most_rows`"),
        ("sql(path=/no/such/file.db)", "There is no file"),
    ],
)
def test_what_cannot_be_made_is_refused(text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        tool.parse(text)


def test_an_unknown_tool_is_refused_with_those_there_are() -> None:
    with pytest.raises(RegistryError, match="calculator"):
        tool.get("abacus")
