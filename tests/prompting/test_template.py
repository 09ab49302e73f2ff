"""Prompts: rendering, what is fixed, and files that cannot be one."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from foreword.errors import ConfigError, DataError
from foreword.prompting.template import Shot, Template, Turn, build, parse_text, parse_toml
from foreword.types import Message

SUPPORT = """
name = "support"

[[messages]]
role = "system"
content = "Answer in one sentence."

[[messages]]
role = "user"
content = "A customer of {{ shop }} asks: {{ question }}"

[[examples]]
user = "Where is {{ my }} parcel?"
assistant = "It has left our house."

[variables]
shop = "Larkspur"
"""


def say(role: Any, content: str) -> Message:
    return Message(role=role, content=content)


SYSTEM = say("system", "Answer in one sentence.")
SHOT = (say("user", "Where is {{ my }} parcel?"), say("assistant", "It has left our house."))


@pytest.fixture
def support() -> Template:
    return parse_toml(SUPPORT, source="support.toml")


def template(*messages: tuple[str, str], **fields: Any) -> Template:
    return build({"name": "t", "messages": [{"role": role, "content": content} for role, content in messages], **fields}, source="t")


def test_rendering(support: Template):
    asked = say("user", "A customer of Larkspur asks: Why?")
    assert support.render({"question": "Why?"}) == (SYSTEM, *SHOT, asked)
    assert support.render({"question": "Why?", "shop": "Aromi"})[-1].content == "A customer of Aromi asks: Why?"
    assert (support.used, support.required) == (("question", "shop"), ("question",))


def test_a_value_is_text_and_no_template(support: Template):
    assert support.render({"question": "{{ shop }} {% if %}"})[-1].content == "A customer of Larkspur asks: {{ shop }} {% if %}"


def test_values_may_be_lists_and_tables():
    cited = template(("user", "{% for part in parts %}[{{ part.id }}] {{ part.text }}\n{% endfor %}"))
    assert cited.render({"parts": [{"id": 1, "text": "a"}, {"id": 2, "text": "b"}]})[0].content == "[1] a\n[2] b\n"


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({}, "needs a value for `question`"),
        ({"question": "a", "shopp": "b"}, "has no variable `shopp`. It has `question`, `shop`."),
        ({"question": object()}, "must be texts, numbers"),
        ({"question": float}, "must be texts, numbers"),
    ],
)
def test_values_that_do_not_fit(support: Template, values: dict[str, Any], words: str):
    with pytest.raises(ConfigError, match=words):
        support.render(values)


def test_a_message_that_cannot_be_made_is_named():
    broken = template(("system", "fine"), ("user", "a\n{{ n / 0 }}"))
    with pytest.raises(ConfigError, match=r"`t` cannot be rendered: `messages.1`, line 2: division by zero"):
        broken.render({"n": 1})


@pytest.mark.parametrize(
    ("messages", "examples", "fixed"),
    [
        # Examples stand before the user's last message, and count.
        ([("system", "S"), ("user", "{{ q }}")], 1, ["S", "U0", "A0"]),
        ([("system", "S"), ("user", "{{ q }}")], 0, ["S"]),
        ([("user", "{{ q }}")], 2, ["U0", "A0", "U1", "A1"]),
        # The user's last turn is the request, even if no variable is in it.
        ([("system", "S"), ("user", "Write a poem.")], 0, ["S"]),
        ([("system", "S"), ("user", "Write a poem.")], 1, ["S", "U0", "A0"]),
        ([("system", "S")], 0, ["S"]),
        ([("system", "S")], 1, ["S", "U0", "A0"]),
        ([("user", "Rules"), ("assistant", "Yes."), ("user", "{{ q }}")], 0, ["Rules", "Yes."]),
        ([("user", "Rules"), ("user", "{{ q }}")], 0, ["Rules"]),
        # Whole messages only, and only from the start.
        ([("system", "S"), ("user", "long text {{ a }}"), ("assistant", "A"), ("user", "{{ q }}")], 0, ["S"]),
        ([("system", "S{% if false %}{{ a }}{% endif %}"), ("user", "{{ q }}")], 0, None),
        ([("system", "{{ a }}"), ("user", "{{ q }}")], 1, None),
        ([("user", "Write a poem.")], 0, None),
        # What always makes the same text is fixed.
        ([("system", "{% for i in range(3) %}{{ i }}{% endfor %}"), ("user", "{{ q }}")], 0, ["012"]),
    ],
)
def test_what_is_fixed(messages: list[tuple[str, str]], examples: int, fixed: list[str] | None):
    shots = [{"user": f"U{number}", "assistant": f"A{number}"} for number in range(examples)]
    prompt = template(*messages, examples=shots)
    if fixed is None:
        with pytest.raises(ConfigError, match="Nothing of prompt `t` is fixed: its"):
            prompt.fixed()
        return
    leading = prompt.fixed()
    assert [message.content for message in leading] == fixed
    assert prompt.render({name: "?" for name in prompt.used})[: len(leading)] == leading


def test_a_default_does_not_make_a_message_fixed(support: Template):
    with_default = template(("system", "You work for {{ shop }}."), ("user", "{{ q }}"), variables={"shop": "Larkspur"})
    with pytest.raises(ConfigError, match="its first message uses `shop`"):
        with_default.fixed()
    assert support.fixed() == (SYSTEM, *SHOT)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("= 3", r"`p` is no TOML: .*line 1"),
        ('messages = "x"', "`messages`"),
        ("", "`messages`: Field required"),
        ("messages = []", "`messages`"),
        ('[[messages]]\nrole = "tool"\ncontent = "x"', "`messages.0.role`"),
        ('[[messages]]\nrole = "user"', "`messages.0.content`: Field required"),
        ('[[messages]]\nrole = "user"\ncontent = "x"\ntext = "y"', "`messages.0.text`: Extra inputs"),
        ('colour = "red"\n[[messages]]\nrole = "user"\ncontent = "x"', "`colour`: Extra inputs"),
        ('[[message]]\nrole = "user"\ncontent = "x"', "`message`: Extra inputs"),
        ('[[messages]]\nrole = "user"\ncontent = "a\\n{{ x"', r"`messages.0`, line 2: unexpected end of template|`messages.0`, line 2"),
        ('[[messages]]\nrole = "user"\ncontent = "{{ x.__class__ }}"', "`messages.0`, line 1: `__class__` cannot be reached"),
        ('[[messages]]\nrole = "user"\ncontent = "{{ x }}"\n[variables]\ny = "1"', "`variables` has `y`, which no message uses.*use `x`"),
        ('[[messages]]\nrole = "user"\ncontent = "{{ x }}"\n[variables]\nx = 2020-01-01', "`variables.x"),
        ('[[messages]]\nrole = "user"\ncontent = "x"\n[[examples]]\nuser = "u"', "`examples.0.assistant`"),
        ('name = "Not Allowed"\n[[messages]]\nrole = "user"\ncontent = "x"', "a name has 1 to 64 characters"),
        ("a = " + "[" * 5_000, "is no TOML"),
    ],
)
def test_files_that_are_no_prompt(text: str, words: str):
    with pytest.raises(DataError, match=words):
        parse_toml(text, source="`p`", default_name="p")


def test_whose_name_it_is(support: Template):
    assert support.name == "support"
    assert parse_toml(SUPPORT, source="p", default_name="file").name == "support"
    assert parse_toml(SUPPORT, source="p", name="given").name == "given"
    assert parse_toml(SUPPORT.replace('name = "support"', ""), source="p", default_name="file").name == "file"
    with pytest.raises(DataError, match="`name`: Field required"):
        parse_toml(SUPPORT.replace('name = "support"', ""), source="p")


@pytest.mark.parametrize(("text", "content"), [("Be kind.\n", "Be kind."), ("Be kind.\r\n", "Be kind."), ("a\n\n", "a\n"), (" a ", " a ")])
def test_a_plain_text_is_the_system_message(text: str, content: str):
    prompt = parse_text(text, source="rules.md", name="rules")
    assert prompt.render() == (say("system", content),) == prompt.fixed()


def test_a_plain_text_may_have_variables():
    assert parse_text("Work for {{ shop }}.", source="p", name="p").render({"shop": "Aromi"})[0].content == "Work for Aromi."
    with pytest.raises(DataError, match=r"`messages.0`, line 2"):
        parse_text("a\n{% if", source="p", name="p")


def test_it_cannot_be_changed(support: Template):
    with pytest.raises(ValidationError):
        support.messages[0].content = "other"  # type: ignore[misc]
    assert Template(name="t", messages=(Turn(role="user", content="x"),), examples=(Shot(user="u", assistant="a"),)).used == ()
