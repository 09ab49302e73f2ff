"""Names with settings as people write them: `tot(beam=3, search=dfs)`, `sql(path=shop.db)`. Strategies, tools and tasks are named so."""

from __future__ import annotations

import json
import re
from typing import Any

_CALL = re.compile(r"([a-z][a-z0-9-]*)(?:\((.*)\))?", re.DOTALL)
_PIECE = re.compile(r'[=,:\[{]\s*"(?:[^"\\]|\\.)*(?:"|\Z)|.', re.DOTALL)
"""A quoted value with the sign before it, or one character."""
_SETTING = re.compile(r"[a-z][a-z0-9_-]*")
_PLAIN = re.compile(r"[^\s\"(),=\[\]{}]([^\"(),\[\]{}]*[^\s\"(),\[\]{}])?")


def split_name(text: str) -> tuple[str, str] | None:
    """A name and what stands in its parentheses; None where the text is neither a name nor a name with parentheses."""
    found = _CALL.fullmatch(text.strip())
    return None if found is None else (found[1], found[2] or "")


def split_list(text: str) -> tuple[str, ...]:
    """The parts of a list that commas separate, except within parentheses or a quoted value: `cot,tot(beam=3, depth=2)` has two."""
    parts, depth, part = [], 0, ""
    for piece in _PIECE.findall(text):
        sign = piece[0]
        depth += (sign in "([{") - (sign in ")]}")
        if sign == "," and depth <= 0:
            parts.append(part)
            part = piece[1:]
        else:
            part += piece
    return tuple(stripped for piece in (*parts, part) if (stripped := piece.strip()))


def read_settings(text: str) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The settings in `beam=3, search=dfs`, and the parts that are none. Values are JSON where they can be read so, else texts."""
    settings: dict[str, Any] = {}
    rest = []
    for part in split_list(text):
        name, equals, value = part.partition("=")
        if equals and _SETTING.fullmatch(name.strip()):
            settings[name.strip().replace("-", "_")] = _value(value.strip())
        else:
            rest.append(part)
    return settings, tuple(rest)


def written(value: Any) -> str:
    """A setting's value as `read_settings` reads it: a plain text as it is, quoted where it would be read as something else."""
    if isinstance(value, str) and _PLAIN.fullmatch(value) and _value(value) == value:
        return value
    return json.dumps(value, ensure_ascii=False)


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text
