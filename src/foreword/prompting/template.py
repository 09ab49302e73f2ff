"""What a prompt is: messages with variables, their defaults, and examples.

In a prompt file this reads

    name = "support"

    [[messages]]
    role = "system"
    content = "Answer in one sentence."

    [[messages]]
    role = "user"
    content = "Question of a customer of {{ shop }}: {{ question }}"

    [[examples]]
    user = "Where is my parcel?"
    assistant = "It has left our house."

    [variables]
    shop = "Larkspur"

Messages are Jinja templates (`sandbox.py` says of what part of the language); examples are texts, taken as they are.
"""

from __future__ import annotations

import itertools
import tomllib
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, JsonValue, TypeAdapter, ValidationError, field_validator, model_validator

from foreword.errors import ConfigError, DataError
from foreword.prefix.header import check_name
from foreword.prompting import sandbox
from foreword.types import Message, Role

MOST_MESSAGES = 1_024

_VALUES = TypeAdapter(dict[str, JsonValue])


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Turn(_Strict):
    """One message of a template. `content` is Jinja text."""

    role: Role
    content: str


class Shot(_Strict):
    """One example: what a user said and what was right to answer, both taken as they are."""

    user: str
    assistant: str


class Template(_Strict):
    """A prompt.

    Attributes:
        name: 1 to 64 of `a-z 0-9 . _ -`.
        messages: in their order.
        variables: values of those variables that need not be given.
        examples: turns of their own, before the last message of the user; after all messages where none is the user's.
        evidence: what was measured when a program made this version; it changes nothing in what the prompt says.
    """

    name: str
    messages: Annotated[tuple[Turn, ...], Field(min_length=1, max_length=MOST_MESSAGES)]
    variables: dict[str, JsonValue] = Field(default_factory=dict)
    examples: Annotated[tuple[Shot, ...], Field(max_length=MOST_MESSAGES)] = ()
    evidence: dict[str, JsonValue] | None = None

    @field_validator("name")
    @classmethod
    def _allowed(cls, name: str) -> str:
        check_name(name)
        return name

    @model_validator(mode="after")
    def _consistent(self) -> Template:
        used: set[str] = set()
        for number, turn in enumerate(self.messages):
            try:
                used |= sandbox.variables(turn.content)
            except sandbox.TemplateError as error:
                raise ValueError(_placed(number, error)) from None
        unused = sorted(set(self.variables) - used)
        if unused:
            known = f"The messages use {_listed(sorted(used))}" if used else "The messages use none"
            raise ValueError(f"`variables` has {_listed(unused)}, which no message uses. {known}.")
        return self

    @property
    def used(self) -> tuple[str, ...]:
        """The names of all variables, in alphabetical order."""
        return tuple(sorted(set().union(*(sandbox.variables(turn.content) for turn in self.messages))))

    @property
    def required(self) -> tuple[str, ...]:
        """The names of the variables that have no default."""
        return tuple(name for name in self.used if name not in self.variables)

    def render(self, values: Mapping[str, JsonValue] | None = None) -> tuple[Message, ...]:
        """The conversation for these values of the variables, examples included.

        Raises:
            ConfigError: a variable is missing or unknown, a value is no JSON, or a message cannot be made of the values.
        """
        given = self._checked(values or {})
        return self._with_examples([self._rendered(number, given) for number in range(len(self.messages))])

    def fixed(self) -> tuple[Message, ...]:
        """The first messages, whole ones that no variable changes; examples count, and the user's last turn never does: it is the request.

        Raises:
            ConfigError: there is none.
        """
        is_fixed = [not sandbox.variables(turn.content) for turn in self.messages]
        marked = self._with_examples([self._rendered(number, {}) if is_fixed[number] else None for number in range(len(self.messages))])
        leading = list(itertools.takewhile(lambda message: message is not None, marked))
        if len(leading) == len(marked) and leading[-1].role == "user":
            leading.pop()
        if not leading:
            used = sorted(sandbox.variables(self.messages[0].content))
            why = f"its first message uses {_listed(used)}" if used else "its only message is the user's turn, which is the request itself"
            raise ConfigError(f"Nothing of prompt `{self.name}` is fixed: {why}. Put what never changes into a message before the others.")
        return tuple(leading)

    def _with_examples(self, messages: list[Any]) -> tuple[Any, ...]:
        """The messages with the examples in their place."""
        last_user = max((number for number, turn in enumerate(self.messages) if turn.role == "user"), default=len(self.messages))
        shots = [(Message(role="user", content=shot.user), Message(role="assistant", content=shot.assistant)) for shot in self.examples]
        return (*messages[:last_user], *itertools.chain.from_iterable(shots), *messages[last_user:])

    def _checked(self, values: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
        unknown = sorted(set(values) - set(self.used))
        if unknown:
            raise ConfigError(f"Prompt `{self.name}` has no variable {_listed(unknown)}. It has {_listed(self.used) or 'none'}.")
        missing = [name for name in self.required if name not in values]
        if missing:
            raise ConfigError(f"Prompt `{self.name}` needs a value for {_listed(missing)}. Give one, or a default under `[variables]`.")
        try:
            return self.variables | _VALUES.validate_python(dict(values))
        except (ValidationError, RecursionError):
            raise ConfigError(f"The values for prompt `{self.name}` must be texts, numbers, or lists and tables of them.") from None

    def _rendered(self, number: int, values: Mapping[str, JsonValue]) -> Message:
        turn = self.messages[number]
        try:
            return Message(role=turn.role, content=sandbox.render(turn.content, values))
        except sandbox.TemplateError as error:
            raise ConfigError(f"Prompt `{self.name}` cannot be rendered: {_placed(number, error)}.") from None


def parse_toml(text: str, *, source: str, name: str | None = None, default_name: str | None = None) -> Template:
    """A prompt from TOML.

    Args:
        source: what the text is called in messages.
        name: instead of the one in the text.
        default_name: where there is neither.

    Raises:
        DataError: it is no TOML, a key is missing or unknown, or a message is no sound template.
    """
    try:
        fields = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise DataError(f"{source} is no TOML: {error}. Mend it; a prompt that is plain text ends in `.txt` or `.md`.") from None
    if name is not None:
        fields["name"] = name
    elif default_name is not None:
        fields.setdefault("name", default_name)
    return build(fields, source=source)


def parse_text(text: str, *, source: str, name: str) -> Template:
    """A prompt that is one system message. The text's last line break is not part of it. Raises `DataError` as `parse_toml`."""
    return build({"name": name, "messages": [{"role": "system", "content": text.removesuffix("\n").removesuffix("\r")}]}, source=source)


def build(fields: Mapping[str, Any], *, source: str) -> Template:
    """A prompt from its fields. Raises `DataError`, which names each that cannot be used."""
    try:
        return Template.model_validate(fields)
    except ValidationError as error:
        problems = error.errors(include_url=False, include_context=False, include_input=False)
        parts = [f"{_place(problem['loc'])}{problem['msg'].removeprefix('Value error, ').rstrip('.')}" for problem in problems[:5]]
        more = f"; and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise DataError(f"{source} is no prompt: {'; '.join(parts)}{more}.") from None


def _place(location: tuple[int | str, ...]) -> str:
    return f"`{'.'.join(str(part) for part in location)}`: " if location else ""


def _placed(number: int, error: sandbox.TemplateError) -> str:
    line = f", line {error.line}" if error.line is not None else ""
    return f"`messages.{number}`{line}: {error}"


def _listed(names: Any) -> str:
    return ", ".join(f"`{name}`" for name in names)
