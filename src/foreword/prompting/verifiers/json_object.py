"""`json-object`: the answer holds one JSON object, alone or among other words (in a code block, after a sentence). Braces that begin no
object fail it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import NoReturn

from foreword.prompting.verifier import Ask, Verdict
from foreword.types import Message

MOST_CHARACTERS = 200_000


async def verify(conversation: Sequence[Message], answer: str, ask: Ask) -> Verdict:
    """1 for exactly one object, 0 otherwise. Asks no model."""
    if len(answer) > MOST_CHARACTERS:
        return Verdict(score=0.0, reason=f"The answer has {len(answer):,} characters; at most {MOST_CHARACTERS:,} are read.")
    decoder, count, place = json.JSONDecoder(parse_constant=_no_number), 0, 0
    while (place := answer.find("{", place)) >= 0:
        began = place
        try:
            _, place = decoder.raw_decode(answer, began)
        except json.JSONDecodeError as error:
            return Verdict(score=0.0, reason=f"What begins at character {began} is no JSON: {error.msg} at character {error.pos}.")
        except (ValueError, RecursionError):
            return Verdict(
                score=0.0, reason=f"What begins at character {began} is no JSON: it has a number or a nesting that is beyond it."
            )
        count += 1
    if count == 1:
        return Verdict(score=1.0)
    return Verdict(score=0.0, reason=f"There are {count or 'no'} JSON objects in the answer; write exactly one.")


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")
