"""Tools from typed Python functions.

    def weather(city: str, days: int = 1) -> str:
        '''The forecast for a city.

        Args:
            city: its English name.
        '''

    tools = Tools.of([tool(weather)])

The JSON schema comes from the types, what the model is told from the docstring, and arguments are checked before the function sees them.
"""

from __future__ import annotations

import functools
import inspect
import json
import re
import typing
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import Annotated, Any, NotRequired

from pydantic import ConfigDict, Field, PydanticSchemaGenerationError, PydanticUserError, TypeAdapter, ValidationError
from pydantic_core import PydanticSerializationError, to_jsonable_python
from typing_extensions import TypedDict

from foreword.agent.detached import Detached
from foreword.errors import ConfigError, ToolError
from foreword.prompting.tool import MOST_CHARACTERS, SECONDS, Tool

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}")
_SECTION = re.compile(r"^(Args|Arguments|Parameters|Returns|Raises|Yields|Examples?):", re.MULTILINE)
_ARGUMENT = re.compile(r"(\w+)(?:[ \t]*\([^)]*\))?:[ \t]*(.*)")
_PROBLEMS = 5
"""Problems of the arguments that are told at once."""


def tool(
    function: Callable[..., Any],
    *,
    name: str | None = None,
    description: str | None = None,
    seconds: float = SECONDS,
    most_characters: int = MOST_CHARACTERS,
) -> Tool:
    """The tool that a function is.

    A coroutine function is awaited, and is cancelled when its time is up; it must not block. Any other function runs in a thread. No thread
    can be ended from outside: where one is still running when its time is up, the call ends in time all the same and the thread is left
    behind, until the function returns or the process ends; after 16 such calls the tool refuses to be called until one of them returns.

    Args:
        function: each parameter has a type, and can be given by name.
        name: what the model calls it by; the function's name where it is not given.
        description: instead of the docstring, whose parts after `Args:` and the like are not told; the arguments' lines are, each with its
            argument.
        seconds: after which a call is given up.
        most_characters: of the result's text.

    Raises:
        ConfigError: the function has no types, no description, or parameters that JSON cannot give.
    """
    name = name if name is not None else str(getattr(function, "__name__", ""))
    if not _NAME.fullmatch(name):
        raise ConfigError(f"`{name[:80]}` cannot be a tool's name: letters, digits, `_` and `-`, at most 64. Give `name`.")
    documentation = inspect.getdoc(function) or ""
    told = description if description is not None else _SECTION.split(documentation, maxsplit=1)[0].strip()
    if not told:
        raise ConfigError(f"Nothing says what `{name}` is for. Give the function a docstring, or `description`.")
    arguments = _adapter(function, name, _described(documentation))
    call = _awaited(function, name, arguments) if _is_async(function) else _threaded(function, name, arguments)
    return Tool(
        name=name, description=told, parameters=_schema(arguments, name), call=call, seconds=seconds, most_characters=most_characters
    )


def as_text(value: Any, name: str) -> str:
    """A result as the model reads it: a text as it is, anything else as JSON.

    Raises:
        ToolError: it has no JSON, or may have no end.
    """
    if isinstance(value, str):
        return value
    if isinstance(value, Iterator | AsyncIterator):
        raise ToolError(f"`{name}` failed: it returned a `{type(value).__name__}`, which may have no end; it must return a text or JSON.")
    try:
        return json.dumps(to_jsonable_python(value), ensure_ascii=False)
    except (PydanticSerializationError, ValueError, TypeError, RecursionError) as error:
        raise ToolError(f"`{name}` failed: its result, a `{type(value).__name__}`, has no JSON: {error}") from None


def _awaited(function: Callable[..., Any], name: str, arguments: TypeAdapter[Any]) -> Callable[[Mapping[str, Any]], Any]:
    async def call(given: Mapping[str, Any]) -> str:
        checked = _checked(arguments, given, name)
        try:
            return as_text(await function(**checked), name)
        except (TimeoutError, SystemExit) as error:
            # The one would read as this call's time being up, the other would end the program.
            raise ToolError(f"`{name}` failed: {type(error).__name__}: {error}") from error

    return call


def _threaded(function: Callable[..., Any], name: str, arguments: TypeAdapter[Any]) -> Callable[[Mapping[str, Any]], Any]:
    threads = Detached(name)

    async def call(given: Mapping[str, Any]) -> str:
        checked = _checked(arguments, given, name)
        return await threads.call(lambda: as_text(function(**checked), name))

    return call


def _is_async(function: Callable[..., Any]) -> bool:
    called = function.func if isinstance(function, functools.partial) else function
    return inspect.iscoroutinefunction(called) or inspect.iscoroutinefunction(getattr(called, "__call__", None))  # noqa: B004


def _adapter(function: Callable[..., Any], name: str, told: Mapping[str, str]) -> TypeAdapter[Any]:
    """Reads an object of arguments. A table, not a model: a parameter may be called `copy` or `schema`."""
    fields: dict[str, Any] = {}
    try:
        hints = typing.get_type_hints(_annotated(function), include_extras=True)
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError, NameError) as error:
        raise ConfigError(f"The types of `{name}` cannot be read: {error}. Give a function with types.") from None
    for parameter in parameters:
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            raise ConfigError(f"`{parameter}` of `{name}` cannot be given by name. Give a function whose parameters all can.")
        if parameter.name not in hints:
            raise ConfigError(f"`{parameter.name}` of `{name}` has no type. Write `{parameter.name}: str`, or whatever it is.")
        field: Any = hints[parameter.name]
        if parameter.name in told:
            field = Annotated[field, Field(description=told[parameter.name])]
        if parameter.default is not parameter.empty:
            default = parameter.default
            if default is None or isinstance(default, bool | int | float | str):
                field = Annotated[field, Field(json_schema_extra={"default": default})]
            field = NotRequired[field]
        fields[parameter.name] = field
    try:
        table: Any = TypedDict("Arguments", fields)  # pyright: ignore[reportArgumentType, reportGeneralTypeIssues]
        table.__pydantic_config__ = ConfigDict(extra="forbid", arbitrary_types_allowed=False)
        return TypeAdapter(table)
    except (PydanticSchemaGenerationError, PydanticUserError, TypeError) as error:
        raise ConfigError(f"A parameter of `{name}` has a type that JSON cannot give: {str(error).splitlines()[0]}") from None


def _annotated(function: Callable[..., Any]) -> Any:
    if isinstance(function, functools.partial):
        return _annotated(function.func)
    return function if inspect.isroutine(function) or inspect.isclass(function) else type(function).__call__


def _schema(arguments: TypeAdapter[Any], name: str) -> dict[str, Any]:
    try:
        schema = arguments.json_schema()
    except PydanticUserError as error:
        raise ConfigError(f"A parameter of `{name}` has a type that JSON cannot give: {str(error).splitlines()[0]}") from None
    return _without_titles(schema)


def _without_titles(schema: Any) -> Any:
    """Titles only repeat the names, and are read by the model at every call."""
    if isinstance(schema, list):
        return [_without_titles(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: {name: _without_titles(part) for name, part in value.items()} if key in ("properties", "$defs") else _without_titles(value)
        for key, value in schema.items()
        if not (key == "title" and isinstance(value, str))
    }


def _checked(arguments: TypeAdapter[Any], given: Mapping[str, Any], name: str) -> dict[str, Any]:
    try:
        return arguments.validate_python(dict(given))
    except ValidationError as error:
        problems = error.errors(include_url=False, include_context=False, include_input=False)
        parts = [f"`{'.'.join(str(part) for part in problem['loc'])}`: {problem['msg']}" for problem in problems[:_PROBLEMS]]
        more = f"; and {len(problems) - _PROBLEMS} more" if len(problems) > _PROBLEMS else ""
        raise ToolError(f"`{name}` cannot be called so: {'; '.join(parts)}{more}.") from None
    except RecursionError:
        raise ToolError(f"`{name}` cannot be called so: the arguments are nested too deeply.") from None


def _described(documentation: str) -> dict[str, str]:
    """What a docstring says of the arguments, under `Args:`; a line that is indented further goes on from the one before."""
    lines = iter(documentation.splitlines())
    told: dict[str, list[str]] = {}
    current: list[str] = []
    depth = 0
    for line in lines:
        if line.strip() in ("Args:", "Arguments:", "Parameters:"):
            break
    for line in lines:
        indent = len(line) - len(line.lstrip())
        if line.strip() and not indent:
            break
        found = _ARGUMENT.fullmatch(line.strip())
        if found and (not depth or indent <= depth):
            depth = indent
            current = told.setdefault(found[1], [found[2]])
        elif line.strip():
            current.append(line.strip())
    return {name: " ".join(parts).strip() for name, parts in told.items() if any(parts)}
