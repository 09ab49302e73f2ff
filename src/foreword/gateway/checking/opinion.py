"""Asks the judge, and records what that took on the passage."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping

from foreword.cost.rates import Consumed
from foreword.gateway.checking.judge import judging, score_in
from foreword.gateway.passage import Attempt, AttemptStatus, Call, Passage, Reply, Target, TargetError
from foreword.gateway.path_settings import PathSettings
from foreword.gateway.question import question

NO_MONEY, NO_ANSWER, NO_NUMBER = "no money for the judge", "judge unavailable", "judge unreadable"


async def opinion(passage: Passage, reply: Reply, targets: Mapping[str, Target], settings: PathSettings) -> float | str:
    """The judge's score, 0 to 1; without one, why there is none, as in `NO_NUMBER`."""
    check = passage.task.check
    model = check.judge
    assert model is not None, "asked only where the settings name a judge"
    request = judging(question(passage.asked), reply.text, check.rubric)
    if passage.hold is not None and not await passage.hold.more(model, request):
        return NO_MONEY
    seconds = min(passage.deadline - asyncio.get_running_loop().time(), settings.model(model).seconds)
    if seconds <= 0:
        return NO_ANSWER
    call = Call(request=request, model=model, tenant=passage.tenant, request_id=f"{passage.id}-judge", seconds=seconds)
    began = time.perf_counter()

    def record(status: AttemptStatus, http_status: int | None = None, consumed: Consumed | None = None) -> None:
        seconds = time.perf_counter() - began
        attempt = Attempt(model=model, why="judge", status=status, seconds=seconds, http_status=http_status, consumed=consumed)
        passage.attempts.append(attempt)

    try:
        answered = await targets[model.partition(":")[0]].complete(call)
    except TargetError as error:
        record(error.status, error.http_status)
        return NO_ANSWER
    except asyncio.CancelledError:
        record("cancelled")
        raise
    record("answered", consumed=answered.consumed)
    score = score_in(answered.text)
    return NO_NUMBER if score is None else score
