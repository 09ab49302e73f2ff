"""`best-of-n`: several answers, and the best of them by a verifier (Cobbe et al. 2021), or the one that the model itself finds likeliest.

Without a verifier the answer with the highest mean log-probability of its tokens is taken, which is weak evidence that it is right.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from pydantic import Field

from foreword.errors import ConfigError
from foreword.prompting.final_answer import marked_answer
from foreword.prompting.strategies._checking import checked, chosen_verifier
from foreword.prompting.strategies._drawing import drawn
from foreword.prompting.strategies._reasoning import THINK, asked_to
from foreword.prompting.strategy import Draft, Run, StrategySettings
from foreword.prompting.verifier import Verify
from foreword.types import Completion, Message


class Settings(StrategySettings):
    """
    Attributes:
        n: answers at most; the first that passes the verifier ends it.
        temperature: that they are drawn with.
        batch: answers drawn at once, before they are checked.
        verifier: name of a verifier; without one, that of the resources is used.
        think: ask for reasons before the answer.
    """

    n: int = Field(default=8, ge=1, le=1000)
    temperature: float = Field(default=0.7, ge=0, le=10)
    batch: int = Field(default=4, ge=1, le=1000)
    verifier: str = ""
    think: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class _Candidate:
    text: str
    score: float
    reason: str = ""

    @property
    def short(self) -> str:
        return marked_answer(self.text) or self.text


async def answer(conversation: tuple[Message, ...], settings: Settings, run: Run) -> Draft:
    """Up to `n` calls, and those of the verifier. Raises `ConfigError` where there is neither a verifier nor log-probabilities."""
    verify = chosen_verifier(settings.verifier, run)
    asked = asked_to(conversation, THINK) if settings.think else conversation
    changes = {"temperature": settings.temperature, **({} if verify else {"logprobs": 0})}
    candidates: list[_Candidate] = []
    while len(candidates) < settings.n:
        # Likelihood never says that one is good enough, so all are drawn at once.
        count = settings.n if verify is None else min(settings.batch, settings.n - len(candidates))
        answers, spent = await drawn(run, [asked] * count, purpose="sample", **changes)
        for completion in answers:
            if completion is None:
                continue
            candidates.append(await _judged(verify, conversation, completion, run))
            run.keep(_draft(candidates, settings, verify))
            if verify is not None and candidates[-1].score >= 1:
                return _draft(candidates, settings, verify)
        if spent is not None:
            raise spent
    return _draft(candidates, settings, verify)


async def _judged(verify: Verify | None, conversation: tuple[Message, ...], completion: Completion, run: Run) -> _Candidate:
    if verify is not None:
        verdict = await checked(verify, conversation, completion.text, run)
        return _Candidate(text=completion.text, score=verdict.score, reason=verdict.reason)
    if completion.token_ids and not completion.logprobs:
        raise ConfigError(
            f"`best-of-n` has no verifier, and `{run.model.name}` tells no log-probabilities to choose by. Name one, as in "
            "`best-of-n(verifier=self-judged)`, or use `self-consistency`."
        )
    likelihoods = [token.logprob for token in completion.logprobs]
    return _Candidate(text=completion.text, score=sum(likelihoods) / len(likelihoods) if likelihoods else -math.inf)


def _draft(candidates: list[_Candidate], settings: Settings, verify: Verify | None) -> Draft:
    """The best so far; of equal ones the first."""
    best = max(candidates, key=lambda candidate: candidate.score)
    count = f"{len(candidates)} of {settings.n} answers"
    if verify is None:
        note = f"the likeliest of {count}: {best.score:.3f} a token"
    elif best.score >= 1:
        note = f"passed after {count}"
    else:
        note = f"none of {count} passed; the best scored {best.score:.2f}{f': {best.reason}' if best.reason else ''}"
    others = dict.fromkeys(candidate.short for candidate in candidates)
    return Draft(text=best.text, final=marked_answer(best.text), candidates=tuple(others), note=note)
