"""Where an input goes: into the one variable without a default, or after the prompt."""

from __future__ import annotations

from typing import Any

import pytest

from foreword.errors import ConfigError
from foreword.prompting.inputs import conversation, conversation_of, input_variable, shot_of
from foreword.prompting.template import Shot, Template, build
from foreword.types import Example, Message


def prompt(*messages: tuple[str, str], **fields: Any) -> Template:
    return build({"name": "p", "messages": [{"role": role, "content": content} for role, content in messages], **fields}, source="test")


def test_into_the_variable():
    template = prompt(("system", "{{ tone }}"), ("user", "Text: {{ text }}"), variables={"tone": "Kind."})
    assert input_variable(template) == "text"
    assert conversation(template, "{{ a }}", variable="text") == (
        Message(role="system", content="Kind."),
        Message(role="user", content="Text: {{ a }}"),
    )
    assert input_variable(template, "text") == "text"


def test_after_the_prompt():
    template = prompt(("system", "Be kind."))
    assert input_variable(template) is None
    assert conversation(template, "Hi", variable=None)[-1] == Message(role="user", content="Hi")
    row = Example(
        messages=(Message(role="user", content="a"), Message(role="assistant", content="b"), Message(role="user", content="c")),
        completions=("d",),
    )
    assert [message.content for message in conversation_of(template, row, variable=None)] == ["Be kind.", "a", "b", "c"]


@pytest.mark.parametrize(
    ("template", "chosen", "message"),
    [
        (prompt(("user", "{{ a }} {{ b }}")), None, "no default for `a`, `b`"),
        (prompt(("user", "{{ a }} {{ b }}")), "a", "no default for `b`"),
        (prompt(("user", "{{ a }}")), "c", "no variable `c`"),
        (prompt(("user", "What?")), None, "no place for an input"),
    ],
)
def test_no_place(template: Template, chosen: str | None, message: str):
    with pytest.raises(ConfigError, match=message):
        input_variable(template, chosen)


def test_turns_do_not_fit_a_variable():
    row = Example(messages=(Message(role="system", content="s"), Message(role="user", content="u")), completions=("a",), line=7)
    with pytest.raises(ConfigError, match="Row 7 has 2 turns"):
        conversation_of(prompt(("user", "{{ a }}")), row, variable="a")


def test_a_row_as_an_example_is_worded_as_the_prompt_words_it():
    template = prompt(("system", "s"), ("user", "Text: {{ text }}"), examples=[{"user": "x", "assistant": "y"}])
    row = Example(messages=(Message(role="user", content="hello"),), completions=("one", "two"))
    assert shot_of(template, row, variable="text") == Shot(user="Text: hello", assistant="one")
    assert shot_of(prompt(("system", "s")), row, variable=None) == Shot(user="hello", assistant="one")
