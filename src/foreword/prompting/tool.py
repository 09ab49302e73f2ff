"""What a tool is: something that a model may call by name with JSON arguments. Concrete ones live in `foreword.agent`.

Whatever a tool does, the caller gets an observation back: it ends in time, and it is no longer than it may be. A tool that is unknown, that
raises, hangs or returns ten megabytes makes an observation that says so, in words that a model can act on.
"""

from __future__ import annotations

import asyncio
import difflib
import json
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from foreword.errors import ConfigError, ToolError

SECONDS = 10.0
MOST_CHARACTERS = 8_000
MOST_ARGUMENTS = 100_000
"""Characters of one call's arguments."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """One tool.

    Attributes:
        parameters: JSON schema of the arguments, an object.
        call: takes the arguments, and returns a text; raises `ToolError` for what the caller can mend, arguments that do not fit included.
        seconds: after which a call is given up.
        most_characters: of its text; what is more is cut, and the text says so.
    """

    name: str
    description: str
    parameters: Mapping[str, Any]
    call: Callable[[Mapping[str, Any]], Awaitable[str]]
    seconds: float = SECONDS
    most_characters: int = MOST_CHARACTERS


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """What came of a call. `ok` is False where there was an error, which `text` then tells."""

    text: str
    ok: bool = True


@dataclass(frozen=True, slots=True)
class Tools:
    """The tools that may be called, by name."""

    by_name: Mapping[str, Tool] = field(default_factory=dict)

    @classmethod
    def of(cls, tools: Iterable[Tool]) -> Tools:
        """Raises `ConfigError` where two have one name."""
        found: dict[str, Tool] = {}
        for tool in tools:
            if tool.name in found:
                raise ConfigError(f"Two tools are named `{tool.name}`. Give one of them another name.")
            found[tool.name] = tool
        return cls(found)

    def __iter__(self) -> Iterator[Tool]:
        return iter(self.by_name.values())

    def __len__(self) -> int:
        return len(self.by_name)

    async def call(self, name: str, arguments: str | Mapping[str, Any]) -> Observation:
        """Calls a tool. Never raises, except when it is cancelled itself.

        Args:
            arguments: a JSON object, as text or read.
        """
        tool = self.by_name.get(name)
        if tool is None:
            near = difflib.get_close_matches(name[:64], self.by_name, n=1)
            hint = f" Did you mean `{near[0]}`?" if near else ""
            return Observation(text=f"There is no tool `{name[:64]}`.{hint} Tools: {', '.join(self.by_name) or 'none'}.", ok=False)
        try:
            given = _arguments(arguments)
            async with asyncio.timeout(tool.seconds):
                text = await tool.call(given)
        except TimeoutError:
            return Observation(text=f"`{name}` took longer than {tool.seconds:g} seconds and was given up.", ok=False)
        except ToolError as error:
            return Observation(text=_cut(str(error), tool.most_characters), ok=False)
        except Exception as error:  # a tool is a stranger's code, and its failure is the model's to deal with
            return Observation(text=_cut(f"`{name}` failed: {type(error).__name__}: {error}", tool.most_characters), ok=False)
        return Observation(text=_cut(text, tool.most_characters))


def _arguments(arguments: str | Mapping[str, Any]) -> Mapping[str, Any]:
    if isinstance(arguments, str):
        if len(arguments) > MOST_ARGUMENTS:
            raise ToolError(f"The arguments have {len(arguments):,} characters; at most {MOST_ARGUMENTS:,} are taken.")
        try:
            arguments = json.loads(arguments)
        except (ValueError, RecursionError) as error:
            raise ToolError(f'The arguments are no JSON: {error}. Give an object, such as {{"query": "tea"}}.') from None
    if not isinstance(arguments, Mapping):
        raise ToolError(f"The arguments must be a JSON object; got {type(arguments).__name__}.")
    return arguments


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[:most]}\n[cut: {len(text) - most:,} more characters]"
