"""Rows of `foreword generate --input`: what each one asks, and every bad row named by its line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from foreword.data.excerpt import excerpt
from foreword.data.files import raw_rows
from foreword.errors import DataError
from foreword.types import Message, Role

ASKING_FIELDS = ("prompt", "messages", "text")
_ROLES: tuple[str, ...] = get_args(Role)
_SHOWN = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One row: its line, its `id` where it has one, and the conversation to answer."""

    line: int
    id: str | int | None
    messages: tuple[Message, ...]


def read_requests(path: Path, *, instruction: str | None) -> tuple[Request, ...]:
    """The requests of a file, in order.

    Args:
        path: JSONL, CSV or a JSON list (also .gz); a row has `prompt`, `messages` or `text`, and may have `system` and `id`.
        instruction: system message of the rows that bring none.

    Raises:
        DataError: the file cannot be read, or rows in it cannot be used; the message names their lines.
    """
    requests, problems = [], {}
    for row in raw_rows(path):
        if row.fields is None:
            problems[row.line] = row.problem
            continue
        try:
            requests.append(_request(row.fields, row.line, instruction))
        except DataError as error:
            problems[row.line] = str(error)
    if problems:
        raise DataError(bad_lines(path, problems, len(requests) + len(problems)))
    return tuple(requests)


def bad_lines(path: Path, problems: Mapping[int, str], total: int) -> str:
    """A message that names up to ten bad lines."""
    listed = [f"  line {line}: {reason}" for line, reason in list(problems.items())[:_SHOWN]]
    if len(problems) > _SHOWN:
        listed.append(f"  and {len(problems) - _SHOWN:,} more")
    return "\n".join([f"`{path}`: {len(problems):,} of {total:,} rows cannot be answered:", *listed, "Mend or remove them."])


def _request(fields: Mapping[str, object], line: int, instruction: str | None) -> Request:
    present = [name for name in ASKING_FIELDS if fields.get(name) is not None]
    if len(present) != 1:
        names = ", ".join(f"`{excerpt(str(name))}`" for name in list(fields)[:_SHOWN]) or "none"
        wanted = "a row needs one of `prompt`, `messages` and `text`"
        raise DataError(f"{wanted}; this one has {' and '.join(f'`{name}`' for name in present) if present else names}")
    value = fields[present[0]]
    turns = _turns(value) if present[0] == "messages" else (Message(role="user", content=_text(value, f"`{present[0]}`")),)
    system = fields.get("system") or instruction
    if system and turns[0].role != "system":
        turns = (Message(role="system", content=_text(system, "`system`")), *turns)
    identity = fields.get("id")
    if identity is not None and (isinstance(identity, bool) or not isinstance(identity, str | int)):
        raise DataError(f"`id` must be a string or a whole number; got {type(identity).__name__}")
    return Request(line=line, id=identity, messages=turns)


def _turns(value: Any) -> tuple[Message, ...]:
    if not isinstance(value, Sequence) or isinstance(value, str) or not value:
        raise DataError(f"`messages` must be a list of objects with `role` and `content`; got {type(value).__name__}")
    turns = tuple(_turn(item, f"`messages[{index}]`") for index, item in enumerate(value))
    if turns[-1].role != "user":
        raise DataError(f"`messages` must end with the user's turn, which is to be answered; it ends with the {turns[-1].role}'s")
    return turns


def _turn(item: object, where: str) -> Message:
    if not isinstance(item, Mapping):
        raise DataError(f"{where} must be an object with `role` and `content`; got {type(item).__name__}")
    role = item.get("role")
    if role not in _ROLES:
        raise DataError(f"{where} has the role {excerpt(repr(role))}; known roles: {', '.join(_ROLES)}")
    return Message(role=role, content=_text(item.get("content"), f"the content of {where}"))


def _text(value: object, where: str) -> str:
    if not isinstance(value, str):
        raise DataError(f"{where} must be a string; got {type(value).__name__}")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise DataError(f"{where} holds half a surrogate pair at position {error.start}, which is no character; remove it") from error
    return value
