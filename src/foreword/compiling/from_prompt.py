"""A prompt's fixed part as a prefix: the exact keys and values of its first messages, as the model's chat template writes them.

A prefix ends between messages, so only whole ones count. What follows is rendered on its own (prompt format `continuation`), and
whether that gives the very tokens of the whole conversation depends on the chat template. It is tried here on requests that would show
a difference, and a template that writes anything else is refused: a prefix that stands for messages must be as good as the messages.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from foreword.compiling import assembly
from foreword.compiling.observer import Observer, Silent
from foreword.errors import ModelError
from foreword.prefix.header import StandsFor
from foreword.prefix.stands_for import messages_hash
from foreword.types import Message

if TYPE_CHECKING:
    from pydantic import JsonValue

    from foreword.compiling.compiler import CompilingEngine
    from foreword.prefix.artifact import Prefix
    from foreword.prompting.template import Template

_TODAY = "strftime_now"
"""What a chat template calls for today's date."""
_SAID = ("How are you?", "42", " \n Blanks before\n\n", "\n", "- a list\n- of two", "émigré 漢字", '{"a": [1]}', "<|im_end|> is text")
"""Beginnings that a tokenizer might join with what stands before."""


def compile_template(
    engine: CompilingEngine,
    template: Template,
    *,
    name: str,
    reference: str | None = None,
    observer: Observer = Silent(),  # noqa: B008 (stateless)
) -> Prefix:
    """The exact keys and values of the prompt's fixed messages.

    Args:
        engine: the model that reads them.
        template: the prompt.
        name: the prefix's name.
        reference: which stored prompt this is, such as `support@v3`; the prefix's header keeps it.

    Raises:
        ConfigError: nothing of the prompt is fixed.
        ModelError: the model's chat template does not write the same tokens when the conversation is cut after these messages.
        WindowError: the prefix leaves no room in the model's window.
        PrefixError: the name is not allowed.
    """
    messages = template.fixed()
    token_ids = _tokens_of(engine, messages)
    stands_for = StandsFor(messages=messages_hash(messages), count=len(messages), prompt=reference)
    recipe: dict[str, JsonValue] = {
        "compiler": "text",
        "stands_as": "messages",
        "messages": len(messages),
        "characters": sum(len(message.content) for message in messages),
        "tokens": len(token_ids),
        "source_sha256": stands_for.messages,
    }
    return assembly.read(engine, token_ids, name=name, recipe=recipe, observer=observer, stands_for=stands_for)


def _tokens_of(engine: CompilingEngine, messages: Sequence[Message]) -> tuple[int, ...]:
    """Token ids of the messages, once it is sure that any request can follow them."""
    written = engine.tokenizer.chat_template
    # Some tokenizers have several templates by name.
    if any(_TODAY in str(text) for text in (written.values() if isinstance(written, dict) else (written,))):
        raise ModelError(
            f"The chat template of `{engine.name}` writes today's date, so what it makes of these messages is another tomorrow. Compile "
            "their text with `foreword compile --chat`, and ask for the prefix by its name."
        )
    try:
        start = engine.render_context(messages)
        requests = [(engine.render(request, prompt_format="continuation"), request) for request in _requests()]
        exact = all((*start, *after) == engine.render((*messages, *request)) for after, request in requests)
    except ModelError as error:
        raise ModelError(_not_exact(engine, messages, f" ({error})")) from error
    # A turn that begins with the words themselves, and no mark before them, may be joined with what stands before by other words.
    if not exact or len({after[:1] for after, _ in requests}) > 1:
        raise ModelError(_not_exact(engine, messages, ""))
    return start


def _requests() -> list[tuple[Message, ...]]:
    """What may follow: a question, or a conversation that goes on for a while."""
    asked = [Message(role="user", content=text) for text in _SAID]
    said = Message(role="assistant", content="Fine.")
    return [*((question,) for question in asked), (asked[0], said, asked[1]), (asked[0], said, asked[2], said, asked[0])]


def _not_exact(engine: CompilingEngine, messages: Sequence[Message], reason: str) -> str:
    roles = ", ".join(message.role for message in messages)
    return (
        f"`{engine.name}` does not write the same tokens when a conversation is cut after the fixed messages of this prompt "
        f"({roles}){reason}, so no prefix can stand for them. Where its chat template has no system turn, put the instruction into a first "
        "message of the user and answer it with one of the assistant; or compile the text with `foreword compile`."
    )
