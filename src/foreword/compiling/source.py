"""The tokens of a text as they stand in a prefix, once it is sure that a request can follow them.

As a system message the text is the start of the conversation and the request goes on from there. As plain text it stands before the
first turn's markup, after BOS where the tokenizer asks for one; the model's own default system message, if it has one, is not put
between the two.
Special tokens that appear in the text stay plain text.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from foreword.engine import Differentiable
from foreword.errors import ModelError, PrefixError, WindowError
from foreword.types import Message

if TYPE_CHECKING:
    from pydantic import JsonValue

    from foreword.compiling.settings import CompileSettings

_REQUEST = (Message(role="user", content="How are you?"),)


def tokens_of(engine: Differentiable, text: str, *, chat: bool) -> tuple[int, ...]:
    """Token ids of the text, as the system message or as plain text.

    Raises:
        PrefixError: the text is empty.
        ModelError: the model's chat template cannot be continued after it.
    """
    if not text.strip():
        raise PrefixError("There is no text to compile: it is empty, or all blank. Give at least one word.")
    _check_continuable(engine)
    return _as_system_message(engine, text) if chat else _as_plain_text(engine, text)


def recipe_of(text: str, *, compiler: str, tokens: int, settings: CompileSettings) -> dict[str, JsonValue]:
    """What every compiled prefix says about how it was made: never the text itself."""
    return {
        "compiler": compiler,
        "stands_as": "system message" if settings.chat else "plain text",
        "characters": len(text),
        "tokens": tokens,
        "source_sha256": hashlib.sha256(text.encode()).hexdigest(),
        "settings": settings.model_dump(mode="json", exclude={"chat", "seed"}),
    }


def check_room(engine: Differentiable, positions: int) -> None:
    """Raises `WindowError` unless a short request fits behind that many positions."""
    request = len(engine.render(_REQUEST, prompt_format="continuation"))
    if positions + request >= engine.window:
        raise WindowError(
            f"The text takes {positions:,} positions, and the window of `{engine.name}` has {engine.window:,}: that leaves no room for a "
            "prompt and its answer. Shorten the text, compact it (`--method compact --ratio 10`), or choose a model with a longer window."
        )


def _as_plain_text(engine: Differentiable, text: str) -> tuple[int, ...]:
    bos: int | None = engine.tokenizer.bos_token_id
    if bos is not None and engine.tokenizer("x")["input_ids"][:1] == [bos]:
        return (bos, *engine.encode(text))
    return engine.encode(text)


def _as_system_message(engine: Any, text: str) -> tuple[int, ...]:
    """The start of a conversation whose system message is `text`, once it is sure that the request can follow it."""
    system = (Message(role="system", content=text),)
    try:
        start, whole = engine.render_context(system), engine.render((*system, *_REQUEST))
    except ModelError as error:
        raise ModelError(_no_system_message(engine, f" ({error})")) from error
    joined = (*start, *engine.render(_REQUEST, prompt_format="continuation"))
    # Compared as text too: without a template, blank lines at the seam may be cut into tokens in two ways.
    if joined != whole and engine.tokenizer.decode(joined) != engine.tokenizer.decode(whole):
        raise ModelError(_no_system_message(engine, ""))
    return start


def _no_system_message(engine: Any, reason: str) -> str:
    return (
        f"The chat template of `{engine.name}` has no system message that stands before the first turn{reason}, so the text cannot be "
        "compiled as one. Compile it as plain text (leave `chat` out)."
    )


def _check_continuable(engine: Any) -> None:
    """What a request looks like after a prefix must be the end of what it looks like alone."""
    alone, after = engine.render(_REQUEST), engine.render(_REQUEST, prompt_format="continuation")
    if after and alone[-len(after) :] == after:
        return
    if not engine.tokenizer.decode(alone).endswith(engine.tokenizer.decode(after)):
        raise ModelError(
            f"The chat template of `{engine.name}` cannot be continued after a prefix: a turn looks different when something stands "
            "before it. Give the text as the instruction of each request instead."
        )
