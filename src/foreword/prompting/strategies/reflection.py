"""`reflection`: answer, check, mend, a few times at most (Reflexion, Shinn et al. 2023; Self-Refine, Madaan et al. 2023).

With a verifier what it says is the feedback, and the answer it scores best is kept. Without one the model criticises itself, which helps
strong models and often harms weak ones: a critique that says neither `right` nor `wrong` ends it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import Field

from foreword.prompting.final_answer import marked_answer
from foreword.prompting.strategies._checking import checked, chosen_verifier
from foreword.prompting.strategies._reasoning import THINK, asked_to
from foreword.prompting.strategy import Draft, Run, StrategySettings
from foreword.prompting.turns import followed_by
from foreword.prompting.verifier import Verdict, Verify
from foreword.types import Message

CRITICISE = (
    "Check this answer. Write `Verdict: right` if nothing is wrong with it. Otherwise write `Verdict: wrong`, and then in one sentence "
    "what is wrong."
)
MEND = "{reason} Answer the question again without this mistake."
NO_REASON = "This is not right."

_VERDICT = re.compile(r"\bverdict\W{1,6}(right|correct|wrong|incorrect)\b[ \t.:,*`-]*", re.IGNORECASE)


class Settings(StrategySettings):
    """
    Attributes:
        rounds: of checking and mending, at most.
        verifier: name of a verifier; without one that of the resources is used, and without any the model criticises itself.
        memory: how many of the last attempts the model sees, with what was wrong about each.
        think: ask for reasons before the answer.
    """

    rounds: int = Field(default=3, ge=1, le=100)
    verifier: str = ""
    memory: int = Field(default=2, ge=1, le=20)
    think: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class _Attempt:
    text: str
    verdict: Verdict


async def answer(conversation: tuple[Message, ...], settings: Settings, run: Run) -> Draft:
    """Two calls for each round at most, and those of the verifier."""
    verify = chosen_verifier(settings.verifier, run)
    asked = asked_to(conversation, THINK) if settings.think else conversation
    attempts: list[_Attempt] = []
    text = (await run.ask(asked, purpose="draft")).text
    for number in range(settings.rounds + 1):
        if verify is None and number == settings.rounds:
            # Nobody would act on a further critique, and it could not tell which attempt is better.
            return _said(text, attempts, note=f"not checked after {number} rounds")
        run.keep(_said(text, attempts) if verify is None else _best(attempts, text))
        verdict = await _check(verify, asked, text, run)
        if verdict is None:
            return _said(text, attempts, note=f"stopped in round {number + 1}: the critique says neither right nor wrong")
        attempts.append(_Attempt(text=text, verdict=verdict))
        if verdict.passed:
            return _said(text, attempts, note=f"found right after {number} revisions")
        if number < settings.rounds:
            text = (await run.ask(_again(asked, attempts[-settings.memory :]), purpose="revision")).text
            if any(attempt.text == text for attempt in attempts):
                return _ended(attempts, verify, text, note=f"stopped in round {number + 1}: the model repeats itself")
    return _ended(attempts, verify, text, note=f"not found right in {settings.rounds} rounds")


async def _check(verify: Verify | None, asked: Sequence[Message], text: str, run: Run) -> Verdict | None:
    """What the verifier or the model says of an answer; None where the model says neither."""
    if verify is not None:
        return await checked(verify, asked, text, run)
    critique = (await run.ask(followed_by(asked, text, CRITICISE), purpose="critique")).text
    found = _VERDICT.search(critique)
    if found is None:
        return None
    if found[1].casefold() in ("right", "correct"):
        return Verdict(score=1.0)
    return Verdict(score=0.0, reason=critique[found.end() :].strip() or critique[: found.start()].strip())


def _again(asked: Sequence[Message], attempts: Sequence[_Attempt]) -> tuple[Message, ...]:
    """The conversation with the last attempts and what was wrong about each."""
    conversation = tuple(asked)
    for attempt in attempts:
        conversation = followed_by(conversation, attempt.text, MEND.format(reason=attempt.verdict.reason or NO_REASON))
    return conversation


def _best(attempts: Sequence[_Attempt], text: str) -> Draft:
    """The attempt that a verifier scores best, the first of equal ones; the text, where none is scored yet."""
    if not attempts:
        return _said(text, attempts)
    return _said(max(attempts, key=lambda attempt: attempt.verdict.score).text, attempts)


def _ended(attempts: Sequence[_Attempt], verify: Verify | None, text: str, *, note: str) -> Draft:
    draft = _said(text, attempts) if verify is None else _best(attempts, text)
    score = "" if verify is None else f"; the best scored {max(attempt.verdict.score for attempt in attempts):.2f}"
    return Draft(text=draft.text, final=draft.final, candidates=draft.candidates, note=f"{note}{score}")


def _said(text: str, attempts: Sequence[_Attempt], note: str = "") -> Draft:
    texts = dict.fromkeys([*(attempt.text for attempt in attempts), text])
    shorts = dict.fromkeys(marked_answer(each) or each for each in texts)
    return Draft(text=text, final=marked_answer(text), candidates=tuple(shorts) if len(shorts) > 1 else (), note=note)
