"""Each row shape, and each thing that can be wrong with a single row."""

from __future__ import annotations

from typing import Any

import pytest

from foreword.data.rows import LabelRule, complete_shapes, decide_shape, to_example
from foreword.errors import DataError
from foreword.types import Example, Message


def convert(rule: LabelRule | None = None, /, **fields: Any) -> Example:
    return to_example(fields, shape=decide_shape(fields), line=3, rule=rule or LabelRule())


def turns(*pairs: tuple[str, object]) -> list[dict[str, object]]:
    return [{"role": role, "content": content} for role, content in pairs]


def test_prompt_and_completion():
    row = convert(prompt="2+2", completion="4", user=17, note="ignored")
    assert row.messages == (Message(role="user", content="2+2"),)
    assert (row.completions, row.line, row.user) == (("4",), 3, "17")


@pytest.mark.parametrize("alias", ["references", "refs"])
def test_references_follow_the_completion(alias: str):
    assert convert(prompt="p", completion="a", **{alias: ["b", "c"]}).completions == ("a", "b", "c")
    assert convert(prompt="p", completion=["a", "b"], **{alias: "c"}).completions == ("a", "b", "c")
    assert convert(prompt="p", **{alias: ["b"]}).completions == ("b",)
    assert convert(prompt="p", completion="a", **{alias: ""}).completions == ("a",)


def test_system_goes_in_front():
    assert convert(prompt="p", completion="c", system="Be brief.").messages[0] == Message(role="system", content="Be brief.")
    assert len(convert(prompt="p", completion="c", system="").messages) == 1
    assert convert(text="t", label="l", system="s").messages[0].role == "system"


def test_messages_end_with_the_completion():
    row = convert(
        messages=turns(("system", "s"), ("user", "u1"), ("assistant", "a1"), ("user", "u2"), ("assistant", "a2")), references="a3"
    )
    assert [message.role for message in row.messages] == ["system", "user", "assistant", "user"]
    assert (row.prompt, row.completions) == ("u2", ("a2", "a3"))


@pytest.mark.parametrize(("label", "wanted"), [("spam", "spam"), (2, "2"), (True, "true"), (False, "false")])
def test_labels_become_strings(label: object, wanted: str):
    assert convert(text="t", label=label).completions == (wanted,)


def test_integer_labels_take_their_names():
    rule = LabelRule(names=("no", "yes"))
    assert convert(rule, text="t", label=1).completions == ("yes",)
    assert convert(rule, text="t", label="0").completions == ("no",)
    assert convert(rule, text="t", label="yes").completions == ("yes",)
    with pytest.raises(DataError, match=r"unknown label -1; there are names for 0 to 1: `no`, `yes`"):
        convert(rule, text="t", label=-1)


def test_null_counts_as_absent():
    assert complete_shapes({"prompt": "p", "completion": None, "text": "t", "label": "l"}) == ("text+label",)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"prompt": "p"}, "missing field `completion`.*has `prompt`"),
        ({"text": "t", "intent": "x"}, "missing field `label`.*has `text`, `intent`"),
        ({"text": "t", "Label": "x"}, "did you mean `label` by `Label`"),
        ({"prmpt": "p", "completion": "c"}, "did you mean `prompt` by `prmpt`"),
        ({}, "missing fields.*has none"),
        ({"prompt": "p", "completion": "c", "text": "t", "label": "l"}, "fits prompt.completion and text.label at once"),
        ({"prompt": 5, "completion": "c"}, "`prompt` must be a string; got int 5"),
        ({"prompt": "p", "completion": 5}, "`completion` must be a string or a list of strings; got int 5"),
        ({"prompt": "p", "completion": ["a", 5]}, r"`completion\[1\]` must be a string; got int 5"),
        ({"prompt": "p", "completion": "  \n"}, "`completion` is empty"),
        ({"prompt": "p", "completion": []}, "`completion` is an empty list"),
        ({"prompt": "p", "completion": ["a", ""]}, r"`completion\[1\]` is empty"),
        ({"prompt": "a\x00b", "completion": "c"}, "`prompt` holds a NUL character at position 1"),
        ({"prompt": "a\ud800", "completion": "c"}, "half a surrogate pair at position 1"),
        ({"prompt": "p", "completion": "c", "system": 3}, "`system` must be a string"),
        ({"prompt": "p", "completion": "c", "user": 1.5}, "`user` must be a string"),
        ({"text": "t", "label": 1.5}, "`label` must be a string; got float 1.5"),
        ({"text": "t", "label": " "}, "`label` is empty"),
        ({"messages": "hello"}, "`messages` must be a list"),
        ({"messages": ["hello"]}, r"`messages\[0\]` must be an object"),
        ({"messages": turns(("user", "u"), ("bot", "a"))}, r"`messages\[1\]` has the role 'bot'; known roles: system, user, assistant"),
        ({"messages": [{"content": "x"}]}, "has the role None"),
        ({"messages": turns(("user", [{"type": "text"}]), ("assistant", "a"))}, r"content of `messages\[0\]` must be a string; got list"),
        ({"messages": turns(("user", "u"))}, "must end with a user turn and the assistant's answer.*roles: user"),
        ({"messages": turns(("system", "s"), ("assistant", "a"))}, "roles: system, assistant"),
        ({"messages": []}, "roles: none"),
        ({"messages": turns(("user", "u"), ("system", "s"), ("user", "u"), ("assistant", "a"))}, "system turn that is not the first"),
        ({"messages": turns(("user", "u"), ("assistant", ""))}, "the assistant's last message is empty"),
        ({"messages": turns(("system", "s"), ("user", "u"), ("assistant", "a")), "system": "s"}, "both `system` and a system turn"),
    ],
)
def test_bad_rows_say_what_is_wrong(fields: dict[str, object], message: str):
    with pytest.raises(DataError, match=message):
        convert(**fields)


def test_mixed_shapes():
    with pytest.raises(DataError, match=r"mixed shapes: the row is text\+label, the rows before it are messages"):
        to_example({"text": "t", "label": "l"}, shape="messages", line=2, rule=LabelRule())


def test_unknown_label_names_the_known_and_the_closest():
    rule = LabelRule(known=("negative", "positive"))
    with pytest.raises(DataError, match="unknown label 'positve'; known labels: `negative`, `positive`; did you mean `positive`"):
        convert(rule, text="t", label="positve")
    many = LabelRule(known=tuple(f"label {i}" for i in range(77)))
    with pytest.raises(DataError, match=r"and 67 more$"):
        convert(many, text="t", label="zzz")
