"""The tools that come with Foreword. They live in `tools/`; what a tool is stands in `foreword.prompting.tool`.

A tool module is found by its file name (`http_get.py` is `http-get`) and has one function, `make`, which takes keyword settings and returns
the `Tool`. As text a tool reads `calculator` or, with settings, `sql(path=shop.db, most_rows=20)`.
"""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError, validate_call

from foreword import registry
from foreword.errors import ConfigError
from foreword.prompting.named_settings import read_settings, split_name
from foreword.prompting.tool import Tool

FOLDER = "foreword.agent.tools"


def names() -> tuple[str, ...]:
    """The keys of all tools."""
    return registry.names(FOLDER)


def get(key: str, **settings: Any) -> Tool:
    """The tool called `key`.

    Raises:
        RegistryError: there is none; the message lists those that exist.
        ConfigError: a setting is missing, unknown, or cannot be used.
    """
    make = registry.find(FOLDER, key).make
    try:
        return validate_call(make)(**settings)
    except ValidationError as error:
        problems = "; ".join(f"`{'.'.join(map(str, part['loc']))}`: {part['msg']}" for part in error.errors(include_url=False))
        raise ConfigError(f"Tool `{key}` cannot be set so: {problems}.") from None


def parse(text: str) -> Tool:
    """The tool that a text such as `sql(path=shop.db)` means; a list is written as JSON, `http-get(hosts=["example.org"])`.

    Raises:
        RegistryError: there is none of this name.
        ConfigError: the text cannot be read, or as `get`.
    """
    found = split_name(text)
    if found is None:
        raise ConfigError(f"`{text[:120]}` is no tool. Write a name, or a name with settings: `sql(path=shop.db)`.")
    settings, rest = read_settings(found[1])
    if rest:
        raise ConfigError(f"`{rest[0][:60]}` in `{text[:120]}` is no setting. Settings read NAME=VALUE.")
    return get(found[0], **settings)
