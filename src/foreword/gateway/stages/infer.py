"""`infer`: asks the models that `route` chose, and where one cannot be asked its secondary, then the next tier.

How one model is asked (a second try, a second call beside the first, a circuit that is open) is in `calls.py`. Every attempt is on the
passage for the bill, and on the answer for the client: `foreword-attempts` says how many, `foreword-tried` which, `foreword-fallback` what
stood in for what.
"""

from __future__ import annotations

import math

from foreword.gateway.calls import Calls, Streamed, left_of
from foreword.gateway.errors import SERVER, Refusal
from foreword.gateway.passage import Passage, TargetError
from foreword.gateway.stage import Next, Parts, Stage

MOST_TOLD = 16
"""Attempts that an answer names one by one."""
_ELSEWHERE = frozenset({"judge", "summary"})
"""Attempts that other stages make."""


def make(parts: Parts) -> Stage:
    """The stage."""
    calls, models = Calls(parts.targets, parts.settings), parts.settings.models

    async def infer(passage: Passage) -> Next:
        failed: TargetError | None = None
        asked: list[str] = []
        why = passage.why
        while passage.tiers:
            model = passage.tiers[0]
            asked.append(model)
            secondary = models[model.partition(":")[0]].secondary
            onward = [name for name in (secondary, *passage.tiers[1:]) if name is not None and name not in asked]
            try:
                answer = await calls.ask(passage, model, why, stands_by=bool(onward))
            except TargetError as error:
                failed = error
                if error.refusal is not None or left_of(passage) <= 0:
                    break
                passage.tiers[:] = onward
                passage.fallbacks += bool(onward)
                why = "fallback"
                continue
            passage.tiers.pop(0)
            passage.model = answer.model
            _tell(passage, asked, answer.model)
            if isinstance(answer, Streamed):
                passage.first_token = answer.began - passage.began
                passage.events = answer
            else:
                passage.reply = answer
            return Next.ON
        _tell(passage, asked, None)
        if passage.reply is not None:
            # An answer is there that a check wanted a better one for; it is better than none.
            return Next.ON
        raise _refusal(failed)

    return infer


def _tell(passage: Passage, asked: list[str], answered: str | None) -> None:
    """Args: answered: by which model, where one did; its attempt may still be under way."""
    made = [attempt for attempt in passage.attempts if attempt.why not in _ELSEWHERE]
    under_way = answered is not None and not passage.buffered
    passage.told["foreword-attempts"] = str(len(made) + under_way)
    if len(made) + under_way > 1 or answered is None:
        tried = [f"{attempt.model} {attempt.why} {attempt.status}" for attempt in made]
        if under_way:
            tried.append(f"{answered} streams")
        passage.told["foreword-tried"] = ", ".join(tried[-MOST_TOLD:])
    if answered is not None:
        passage.told["foreword-model"] = answered
        # A hedge may have been answered by a model that was not next.
        models = asked if answered in asked else [*asked, answered]
        if len(models) > 1:
            passage.told["foreword-fallback"] = "->".join(models)


def _refusal(error: TargetError | None) -> Refusal:
    if error is None:
        return Refusal(503, "No model is left to ask.", kind=SERVER, code="unavailable")
    if error.refusal is not None:
        words = error.refusal.decode("utf-8", "replace")
        return Refusal(error.http_status or 400, words, code=error.code or "invalid_value", param=error.param)
    if error.status == "timeout":
        words = f"{error} Ask for a shorter answer, or give the request more time."
        return Refusal(504, words, kind=SERVER, code="upstream_timeout")
    if error.retry_after is None and error.http_status != 429:
        return Refusal(502, f"{error} Send the request again later.", kind=SERVER, code="upstream_failed")
    seconds = max(1, math.ceil(error.retry_after or 1.0))
    words = f"{error} Send the request again in {seconds} seconds."
    return Refusal(503, words, kind=SERVER, code="upstream_busy", headers={"retry-after": str(seconds)})
