"""`text:FILE` or `text:words`: the exact keys and values of a system message."""

from __future__ import annotations

from pathlib import Path

from foreword.errors import TuningError
from foreword.tuning.fitting import fit_positions
from foreword.tuning.initialisation import Start, StartContext
from foreword.tuning.instruction import instruction_for
from foreword.types import Message


def start(context: StartContext) -> Start:
    """Keys and values of the text, fitted to the wanted number of positions."""
    text = _text(context)
    token_ids = context.engine.render_context((Message(role="system", content=text),))
    while context.positions and text and len(token_ids) < context.positions:
        # Said again until it is long enough.
        text = f"{text}\n{text}"
        token_ids = context.engine.render_context((Message(role="system", content=text),))
    if len(token_ids) > context.room:
        raise TuningError(f"The initial text has {len(token_ids)} tokens; {context.room} leave room for the longest example. Shorten it.")
    key_LHND, value_LHND = context.engine.read(token_ids)
    return fit_positions(context, Start(key_LHND=key_LHND, value_LHND=value_LHND, prompt_format="continuation"))


def _text(context: StartContext) -> str:
    if context.argument is None:
        return instruction_for(context.train, context.instruction)
    path = Path(context.argument)
    try:
        return path.read_text(encoding="utf-8") if path.is_file() else context.argument
    except UnicodeDecodeError as error:
        raise TuningError(f"{path} is not UTF-8 text (byte {error.start}); save it as UTF-8.") from error
