"""Whether the goal is met, judged by a model where nothing can compute it."""

from __future__ import annotations

import re
from collections.abc import Sequence

from foreword.prompting.verifier import Ask, Verdict
from foreword.types import Message

MOST_REASON = 400
_YES_OR_NO = re.compile(r"\b(yes|no)\b", re.IGNORECASE)


async def judge(conversation: Sequence[Message], answer: str, ask: Ask) -> Verdict:
    """Asks the model itself whether an answer meets the goal. Meets `Verify`. Raises as `Run.ask`.

    One that says neither yes nor no lets the answer pass: a check that cannot be read is no reason to throw an answer away. The verdict's
    reason says so.
    """
    request = (
        f"{conversation[-1].content}\n\nThe answer given is:\n{answer}\n\n"
        "Does this answer meet the goal? Write Yes or No, and after No what is missing, in one sentence."
    )
    completion = await ask((Message(role="user", content=request),), purpose="check", max_new_tokens=96)
    text = completion.text.strip()
    found = _YES_OR_NO.search(text)
    if found is None:
        return Verdict(score=1.0, reason="The judge said neither yes nor no.")
    if found[1].lower() == "yes":
        return Verdict(score=1.0)
    reason = text[found.end() :].strip(" .,:;-\n")[:MOST_REASON]
    return Verdict(score=0.0, reason=reason or "It does not meet the goal.")
