"""The form of an answer: a JSON schema, a regular expression, one of some labels, a source that is named. Each holds or does not.

Schemas and expressions are compiled once, and matched by an engine whose time is linear in the answer's length (Rust's `regex`, by way of
jsonschema-rs), since a model, or whoever writes to one, chooses what is matched. Look-around and back-references are not to be had there.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

import msgspec

from foreword.errors import ConfigError
from foreword.gateway.path_settings import CheckSettings

MOST_CHARACTERS = 1_000_000
"""A longer answer has no form."""
MOST_LABEL = 200
"""Characters of an answer that can be a label."""
_EDGES = re.compile(r"^[\W_]+|[\W_]+$")
_CITED = re.compile(r"\[(\d{1,4})\]")

Form = Callable[[str, int], bool]
"""Takes an answer and how many passages stood before the question; says whether it has the form."""


def forms(settings: CheckSettings) -> tuple[tuple[str, Form], ...]:
    """All that the settings ask for, by name.

    Raises:
        ConfigError: a schema or an expression cannot be used, or the package for them is not installed.
    """
    found: list[tuple[str, Form]] = []
    if settings.json_schema:
        found.append(("json_schema", json_form(settings.json_schema)))
    if settings.regex:
        found.append(("regex", regex_form(settings.regex)))
    if settings.labels:
        found.append(("labels", label_form(settings.labels)))
    if settings.citation:
        found.append(("citation", _cites))
    return tuple(found)


def json_form(schema: Mapping[str, Any]) -> Form:
    """Whether an answer is JSON that fits a schema; nothing may stand around the JSON. Raises `ConfigError`."""
    valid = _validator(dict(schema), "`check.json_schema`")

    def fits(answer: str, sources: int) -> bool:
        if len(answer) > MOST_CHARACTERS:
            return False
        try:
            value = msgspec.json.decode(answer.strip())
        except (msgspec.MsgspecError, UnicodeError, RecursionError):
            return False
        return valid(value)

    return fits


def regex_form(pattern: str) -> Form:
    """Whether an expression matches the whole answer, white space around it left out. Raises `ConfigError`."""
    valid = _validator({"type": "string", "pattern": f"^(?:{pattern})$"}, f"`check.regex` ({pattern!r})")
    return lambda answer, sources: len(answer) <= MOST_CHARACTERS and valid(answer.strip())


def label_form(labels: tuple[str, ...]) -> Form:
    """Whether an answer is one of the labels, case and outer punctuation left out. Raises `ConfigError`."""
    known = frozenset(map(plain, labels))
    if "" in known:
        raise ConfigError("`check.labels` has a label without a letter or a digit. Name it otherwise.")
    return lambda answer, sources: len(answer) <= MOST_LABEL and plain(answer) in known


def plain(label: str) -> str:
    """A label as it is compared: ` **Billing.** ` is `billing`."""
    return _EDGES.sub("", label.strip()).casefold()


def _cites(answer: str, sources: int) -> bool:
    """Whether a source is named, and none that there is not; where the passages are the client's own, any number will do."""
    numbers = [int(number) for number in _CITED.findall(answer)]
    return bool(numbers) and all(number >= 1 and (not sources or number <= sources) for number in numbers)


def _validator(schema: dict[str, Any], what: str) -> Callable[[Any], bool]:
    package = _package()
    try:
        # A schema is whole in itself: nothing that it refers to is fetched.
        return package.validator_for(schema, pattern_options=package.RegexOptions(), offline=True).is_valid
    except (package.ValidationError, package.ReferencingError, ValueError) as error:
        words = str(error).split("\n", 1)[0]
        hint = "Look-around and back-references are not to be had; a schema may not refer to other files."
        raise ConfigError(f"{what} cannot be used: {words}. {hint}") from None


def _package() -> ModuleType:
    try:
        import jsonschema_rs
    except ModuleNotFoundError as error:
        raise ConfigError(
            "Checks of an answer's form need the package `jsonschema-rs`. Install it: pip install 'foreword[serve]'."
        ) from error
    return jsonschema_rs
