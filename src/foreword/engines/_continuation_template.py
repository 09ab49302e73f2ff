"""A chat template that can also go on from a conversation that has begun.

vLLM renders a conversation by the chat template it was started with. Behind a prefix that holds the conversation's start, only what
follows may be rendered, which no template does of itself: it writes its start-of-text token or a default system message first. The
template made here is the model's own; where the variable `foreword_continuation` is set, it writes a stand-in for the start before the
messages and cuts it off again, as `_conversation.py` does for the engine in this process. So vLLM still renders tools, content parts and
whatever else its model knows by itself, and no client may send a template.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from typing import Any

from foreword.engines import _conversation
from foreword.types import Message

logger = logging.getLogger(__name__)

VARIABLE = "foreword_continuation"

_STAND_INS = (_conversation._STAND_IN, _conversation._STAND_IN_NO_SYSTEM)
_MARK = _conversation._MARK


def continuation_template(tokenizer: Any, template: str) -> str | None:
    """`template` with the continuation added, or None where it cannot be continued after a prefix.

    Without the variable the new template writes what `template` writes.
    """
    for stand_in in _STAND_INS:
        try:
            before = _render(tokenizer, template, stand_in, answer_next=False)
            whole = _render(tokenizer, template, (*stand_in, *_conversation._NEXT_TURN), answer_next=True)
        except Exception as error:  # jinja raises whatever the template's author chose; the next stand-in may suit it
            logger.debug("the chat template refuses a stand-in: %s", error)
            continue
        tail = before.rpartition(_MARK)[2]
        if _MARK in before and whole.startswith(before) and _MARK not in whole[len(before) :]:
            return _wrapped(template, stand_in, marks=before.count(_MARK), tail=tail)
    return None


def _render(tokenizer: Any, template: str, messages: Sequence[Message], *, answer_next: bool) -> str:
    turns = [{"role": message.role, "content": message.content} for message in messages]
    return tokenizer.apply_chat_template(turns, chat_template=template, tokenize=False, add_generation_prompt=answer_next)


def _wrapped(template: str, stand_in: Sequence[Message], *, marks: int, tail: str) -> str:
    """The template inside one that adds the stand-in and takes what follows its last mark and `tail`.

    Chat templates are compiled with `trim_blocks` and `lstrip_blocks`. The line break before the template is trimmed, so that it starts on
    a line of its own as ever; the empty expression after it keeps blanks at its end.
    """
    turns = json.dumps([{"role": message.role, "content": message.content} for message in stand_in])
    mark, rest = json.dumps(_MARK), json.dumps(tail, ensure_ascii=False)
    wanted = f"{VARIABLE} is defined and {VARIABLE}"
    return (
        f"{{% if {wanted} %}}{{% set messages = {turns} + messages %}}{{% endif %}}"
        f"{{% set foreword_whole %}}\n{template.removesuffix(chr(10))}{{{{ '' }}}}{{% endset %}}"
        f"{{% if {wanted} %}}"
        f"{{% set foreword_rest = foreword_whole.split({mark}, {marks}) | last %}}"
        f"{{% if not foreword_rest.startswith({rest}) %}}"
        "{{ raise_exception('This conversation cannot go on from a prefix: the chat template writes its start differently.') }}"
        "{% endif %}"
        f"{{{{ foreword_rest[{len(tail)}:] }}}}"
        "{% else %}{{ foreword_whole }}{% endif %}"
    )
