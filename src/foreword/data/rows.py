"""One row of fields to one `Example`, in three shapes: `prompt`+`completion`, `messages`, `text`+`label`.

Errors here say what is wrong with the row; `reading.py` adds the file and the line.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from foreword.data.excerpt import excerpt
from foreword.errors import DataError
from foreword.types import Example, Message, Role

Shape = Literal["prompt+completion", "messages", "text+label"]
Fields = Mapping[str, object]

REFERENCE_FIELDS = ("references", "refs")
KNOWN_FIELDS = ("prompt", "completion", *REFERENCE_FIELDS, "messages", "text", "label", "system", "user")
_WANTED = "`prompt` and `completion`, or `messages`, or `text` and `label`"
_ROLES: tuple[str, ...] = get_args(Role)
_SHOWN = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelRule:
    """Which labels are allowed, and what integer labels are called.

    Attributes:
        known: the labels a row may have; None allows any.
        names: names of the integer labels 0, 1, ...; None keeps them as decimal strings.
    """

    known: tuple[str, ...] | None = None
    names: tuple[str, ...] | None = None


def complete_shapes(fields: Fields) -> tuple[Shape, ...]:
    """The shapes whose fields are all there. A null field counts as absent."""
    has = {name for name in KNOWN_FIELDS if fields.get(name) is not None}
    found: list[Shape] = []
    if "prompt" in has and has & {"completion", *REFERENCE_FIELDS}:
        found.append("prompt+completion")
    if "messages" in has:
        found.append("messages")
    if {"text", "label"} <= has:
        found.append("text+label")
    return tuple(found)


def decide_shape(fields: Fields) -> Shape:
    """The shape of a file, from its first row with usable fields.

    Raises:
        DataError: the row fits no shape, or several.
    """
    found = complete_shapes(fields)
    if len(found) > 1:
        raise DataError(f"the row fits {' and '.join(found)} at once; remove the fields of one of them")
    if not found:
        raise DataError(_missing(fields))
    return found[0]


def to_example(fields: Fields, *, shape: Shape, line: int, rule: LabelRule) -> Example:
    """The example that a row of the file's shape stands for.

    Raises:
        DataError: a field is missing, empty, of the wrong type, or the label is unknown.
    """
    found = complete_shapes(fields)
    if shape not in found:
        if found:
            raise DataError(f"mixed shapes: the row is {found[0]}, the rows before it are {shape}; put each shape into its own file")
        raise DataError(_missing(fields))
    if shape == "messages":
        messages, completions = _from_messages(fields["messages"])
        completions += _references(fields)
    elif shape == "text+label":
        messages, completions = (_user_turn(fields, "text"),), (_label(fields["label"], rule),)
    else:
        messages, completions = (_user_turn(fields, "prompt"),), _completions(fields)
    return Example(messages=_with_system(fields, messages), completions=completions, line=line, user=_user(fields))


def _missing(fields: Fields) -> str:
    names = [str(name) for name in fields if fields[name] is not None]
    has = f"has {_listing(names)}" if names else "has none"
    half = {"prompt": "completion", "text": "label", "completion": "prompt", "label": "text"}
    lacking = next((half[name] for name in half if name in names), None)
    wanted = (lacking,) if lacking else KNOWN_FIELDS[:7]
    hint = ""
    for name in names:
        close = difflib.get_close_matches(name.strip().lower(), wanted, n=1, cutoff=0.75)
        if close and name not in KNOWN_FIELDS:
            hint = f"; did you mean `{close[0]}` by `{excerpt(name)}`?"
            break
    what = f"missing field `{lacking}`" if lacking else "missing fields"
    return f"{what}: a row needs {_WANTED}; this one {has}{hint}"


def _listing(names: Sequence[str]) -> str:
    shown = ", ".join(f"`{excerpt(name)}`" for name in names[:_SHOWN])
    return shown if len(names) <= _SHOWN else f"{shown} and {len(names) - _SHOWN} more"


def _text(value: object, where: str) -> str:
    if not isinstance(value, str):
        raise DataError(f"{where} must be a string; got {type(value).__name__} {_short(value)}")
    if "\x00" in value:
        raise DataError(f"{where} holds a NUL character at position {value.index(chr(0))}; remove it")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise DataError(f"{where} holds half a surrogate pair at position {error.start}, which is no character; remove it") from error
    return value


def _short(value: object) -> str:
    shown = repr(value)
    return shown if len(shown) <= 60 else f"{shown[:57]}..."


def _answer(value: object, where: str) -> str:
    text = _text(value, where)
    if not text.strip():
        raise DataError(f"{where} is empty; the model cannot learn from it")
    return text


def _answers(value: object, name: str) -> tuple[str, ...]:
    if isinstance(value, str):
        return (_answer(value, f"`{name}`"),)
    if not isinstance(value, (list, tuple)):
        raise DataError(f"`{name}` must be a string or a list of strings; got {type(value).__name__} {_short(value)}")
    return tuple(_answer(item, f"`{name}[{index}]`") for index, item in enumerate(value))


def _references(fields: Fields) -> tuple[str, ...]:
    """Further answers; a blank cell of a table counts as none."""
    return tuple(text for name in REFERENCE_FIELDS if fields.get(name) not in (None, "") for text in _answers(fields[name], name))


def _completions(fields: Fields) -> tuple[str, ...]:
    own = _answers(fields["completion"], "completion") if fields.get("completion") is not None else ()
    completions = own + _references(fields)
    if not completions:
        raise DataError("`completion` is an empty list; give at least one answer")
    return completions


def _user_turn(fields: Fields, name: str) -> Message:
    return Message(role="user", content=_text(fields[name], f"`{name}`"))


def _from_messages(value: object) -> tuple[tuple[Message, ...], tuple[str, ...]]:
    if not isinstance(value, (list, tuple)):
        raise DataError(f"`messages` must be a list of objects with `role` and `content`; got {type(value).__name__} {_short(value)}")
    turns = tuple(_turn(item, f"`messages[{index}]`") for index, item in enumerate(value))
    if len(turns) < 2 or turns[-1].role != "assistant" or turns[-2].role != "user":
        roles = ", ".join(turn.role for turn in turns) or "none"
        raise DataError(f"`messages` must end with a user turn and the assistant's answer to it; got the roles: {_short(roles)[1:-1]}")
    if any(turn.role == "system" for turn in turns[1:]):
        raise DataError("`messages` has a system turn that is not the first; move it to the front")
    return turns[:-1], (_answer(turns[-1].content, "the assistant's last message"),)


def _turn(item: object, where: str) -> Message:
    if not isinstance(item, Mapping):
        raise DataError(f"{where} must be an object with `role` and `content`; got {type(item).__name__} {_short(item)}")
    role = item.get("role")
    if not isinstance(role, str) or role not in _ROLES:
        raise DataError(f"{where} has the role {_short(role)}; known roles: {', '.join(_ROLES)}")
    return Message(role=role, content=_text(item.get("content"), f"the content of {where}"))  # type: ignore[arg-type]  # checked above


def _with_system(fields: Fields, messages: tuple[Message, ...]) -> tuple[Message, ...]:
    system = fields.get("system")
    if system is None or system == "":
        return messages
    text = _text(system, "`system`")
    if messages[0].role == "system":
        raise DataError("both `system` and a system turn in `messages`; keep one of them")
    return (Message(role="system", content=text), *messages)


def _user(fields: Fields) -> str | None:
    value = fields.get("user")
    if value is None or value == "":
        return None
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return _text(value, "`user`")


def _label(value: object, rule: LabelRule) -> str:
    if isinstance(value, bool):
        label = "true" if value else "false"
    elif isinstance(value, int):
        label = _named(value, rule)
    else:
        label = _text(value, "`label`")
        if rule.names and label not in rule.names and label.isdecimal():
            label = _named(int(label), rule)
    if not label.strip():
        raise DataError("`label` is empty")
    if rule.known is not None and label not in rule.known:
        close = difflib.get_close_matches(label, rule.known, n=1, cutoff=0.6)
        hint = f"; did you mean `{close[0]}`?" if close else ""
        raise DataError(f"unknown label {_short(label)}; known labels: {_listing(rule.known)}{hint}")
    return label


def _named(number: int, rule: LabelRule) -> str:
    if rule.names is None:
        return str(number)
    if not 0 <= number < len(rule.names):
        raise DataError(f"unknown label {number}; there are names for 0 to {len(rule.names) - 1}: {_listing(rule.names)}")
    return rule.names[number]
