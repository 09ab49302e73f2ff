"""Where an input stands in a prompt.

A prompt with one variable that has no default takes inputs there. One without is followed by them: the input is the user's turn.
"""

from __future__ import annotations

from collections.abc import Iterable

from foreword.errors import ConfigError
from foreword.prompting.template import Shot, Template
from foreword.types import Example, Message


def input_variable(template: Template, chosen: str | None = None) -> str | None:
    """The variable that takes inputs; None where inputs follow the prompt as the user's turn.

    Args:
        chosen: which one, where several have no default; the others must then have one.

    Raises:
        ConfigError: it cannot be told where an input goes.
    """
    others = [name for name in template.required if name != chosen]
    if chosen is not None:
        if chosen not in template.used:
            raise ConfigError(f"Prompt `{template.name}` has no variable `{chosen}`. It has {_listed(template.used)}.")
        if others:
            raise ConfigError(f"Prompt `{template.name}` has no default for {_listed(others)}. Give each one under `[variables]`.")
        return chosen
    if len(others) > 1:
        raise ConfigError(
            f"Prompt `{template.name}` has no default for {_listed(others)}, so it is not clear which takes the inputs. Say which, and "
            "give the others defaults under `[variables]`."
        )
    if others:
        return others[0]
    if template.messages[-1].role == "user":
        raise ConfigError(
            f"Prompt `{template.name}` ends with the user's turn and has no variable without a default, so there is no place for an input. "
            "Write `{{ input }}` where it goes."
        )
    return None


def conversation(template: Template, text: str, *, variable: str | None) -> tuple[Message, ...]:
    """The conversation that asks for the answer to one input. Args: variable: what `input_variable` said."""
    if variable is None:
        return (*template.render(), Message(role="user", content=text))
    return template.render({variable: text})


def conversation_of(template: Template, example: Example, *, variable: str | None) -> tuple[Message, ...]:
    """The conversation that asks for a row's answer.

    Raises:
        ConfigError: the row has turns before the user's last, and the prompt has a place for one text only.
    """
    if len(example.messages) == 1:
        return conversation(template, example.prompt, variable=variable)
    if variable is not None:
        raise ConfigError(
            f"Row {example.line} has {len(example.messages)} turns; prompt `{template.name}` takes one text, in `{variable}`. Give rows of "
            "one turn, or a prompt without that variable, which such rows follow."
        )
    return (*template.render(), *example.messages)


def shot_of(template: Template, example: Example, *, variable: str | None) -> Shot:
    """A row as an example of the prompt: its input as the prompt words it, and the first of its wanted answers."""
    asked = conversation(template.model_copy(update={"examples": ()}), example.prompt, variable=variable)
    return Shot(user=asked[-1].content if asked[-1].role == "user" else example.prompt, assistant=example.completions[0])


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names) or "none"
