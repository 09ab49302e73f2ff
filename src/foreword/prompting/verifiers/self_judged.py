"""`self-judged`: the model is asked whether its answer is right. One call, and only as good as the model's judgement."""

from __future__ import annotations

import re
from collections.abc import Sequence

from foreword.prompting.turns import question
from foreword.prompting.verifier import Ask, Verdict
from foreword.types import Message

IS_IT_RIGHT = "Question:\n{question}\n\nProposed answer:\n{answer}\n\nIs the proposed answer right? Reply with yes or no."
MOST_CHARACTERS = 6_000
"""Of the answer; the end is judged, where the result stands."""
MOST_REPLY = 8
"""Tokens."""

_REPLY = re.compile(r"\b(yes|no)\b", re.IGNORECASE)


async def verify(conversation: Sequence[Message], answer: str, ask: Ask) -> Verdict:
    """1 for yes, 0 for no, a half where the reply is neither."""
    asked = IS_IT_RIGHT.format(question=question(conversation), answer=answer[-MOST_CHARACTERS:])
    completion = await ask((Message(role="user", content=asked),), purpose="check", temperature=0.0, max_new_tokens=MOST_REPLY)
    found = _REPLY.search(completion.text)
    if found is None:
        return Verdict(score=0.5, reason=f"Asked whether it is right, the model said neither yes nor no: {completion.text[:80]!r}.")
    if found[1].casefold() == "yes":
        return Verdict(score=1.0)
    return Verdict(score=0.0, reason="Asked whether it is right, the model said no.")
