"""`infer`: asks the models that `route` chose, the next one where one cannot be asked; every attempt is recorded on the passage."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping

import msgspec

from foreword.gateway.errors import SERVER, Refusal
from foreword.gateway.passage import Attempt, Call, Event, Passage, Reply, Target, TargetError
from foreword.gateway.path_settings import PathSettings
from foreword.gateway.stage import Next, Parts, Stage


def make(parts: Parts) -> Stage:
    """The stage."""
    targets, settings = parts.targets, parts.settings

    async def infer(passage: Passage) -> Next:
        last: TargetError | None = None
        while passage.tiers:
            model = passage.tiers[0]
            try:
                if passage.buffered:
                    passage.reply = await _whole(passage, model, targets, settings)
                else:
                    passage.events = await _begun(passage, model, targets, settings)
            except TargetError as error:
                last = error
                if error.refusal is not None:
                    break
                secondary = settings.models[model.partition(":")[0]].secondary
                passage.tiers[0:1] = [secondary] if secondary and secondary != model else []
                passage.why = "fallback"
                continue
            passage.tiers.pop(0)
            passage.model = model
            passage.told["foreword-model"] = model
            return Next.ON
        raise _refusal(last)

    return infer


async def _whole(passage: Passage, model: str, targets: Mapping[str, Target], settings: PathSettings) -> Reply:
    began = time.perf_counter()
    try:
        reply = await targets[model.partition(":")[0]].complete(_call(passage, model, settings))
    except TargetError as error:
        _failed(passage, model, error, began)
        raise
    _answered(passage, model, reply, began)
    return reply


async def _begun(passage: Passage, model: str, targets: Mapping[str, Target], settings: PathSettings) -> AsyncIterator[Event]:
    """The answer's pieces, once the first one is there: until then another model can still be asked."""
    began = time.perf_counter()
    events = targets[model.partition(":")[0]].stream(_call(passage, model, settings))
    try:
        first = await anext(events)
    except TargetError as error:
        _failed(passage, model, error, began)
        raise
    except StopAsyncIteration:
        error = TargetError(f"`{model}` ended its answer before it began.", status="broken")
        _failed(passage, model, error, began)
        raise error from None
    passage.first_token = time.perf_counter() - passage.began
    return _pieces(passage, model, events, first, began)


async def _pieces(passage: Passage, model: str, events: AsyncIterator[Event], first: Event, began: float) -> AsyncIterator[Event]:
    """Passes the pieces on and puts the answer together behind them, so that what follows sees it as a whole."""
    seen = [first]
    try:
        yield first
        async for event in events:
            seen.append(event)
            yield event
    except TargetError as error:
        _failed(passage, model, error, began)
        raise
    finally:
        await events.aclose()  # type: ignore[attr-defined]
        if passage.model == model and not passage.attempts:
            passage.reply = _put_together(model, seen)
            _answered(passage, model, passage.reply, began)


def _put_together(model: str, seen: list[Event]) -> Reply:
    return Reply(
        model=model,
        body=b"",
        text="".join(event.text for event in seen),
        finish_reason=next((event.finish_reason for event in reversed(seen) if event.finish_reason), None),
        consumed=next((event.consumed for event in reversed(seen) if event.consumed is not None), None),
        tool_calls=any(event.tool_calls for event in seen),
    )


def _call(passage: Passage, model: str, settings: PathSettings) -> Call:
    left = passage.deadline - asyncio.get_running_loop().time()
    if left <= 0:
        raise TargetError("The request's deadline has passed.", status="timeout")
    own = settings.models[model.partition(":")[0]]
    limits = [limit for limit in (passage.request.output_limit(), passage.task.output_limit, own.output_limit) if limit is not None]
    request = passage.request
    if limits and min(limits) != request.output_limit():
        request = msgspec.structs.replace(request, max_tokens=min(limits), max_completion_tokens=msgspec.UNSET)
    return Call(request=request, model=model, tenant=passage.tenant, request_id=passage.id, seconds=min(left, own.seconds))


def _answered(passage: Passage, model: str, reply: Reply, began: float) -> None:
    seconds = time.perf_counter() - began
    passage.attempts.append(Attempt(model=model, why=passage.why, status="answered", seconds=seconds, consumed=reply.consumed))


def _failed(passage: Passage, model: str, error: TargetError, began: float) -> None:
    seconds = time.perf_counter() - began
    passage.attempts.append(Attempt(model=model, why=passage.why, status=error.status, seconds=seconds, http_status=error.http_status))
    passage.fallbacks += 1


def _refusal(error: TargetError | None) -> Refusal:
    if error is None:
        return Refusal(503, "No model is left to ask.", kind=SERVER, code="unavailable")
    if error.refusal is not None:
        return Refusal(error.http_status or 400, error.refusal.decode("utf-8", "replace"), code="invalid_value")
    status = 504 if error.status == "timeout" else 502
    headers = None if error.retry_after is None else {"retry-after": str(max(1, round(error.retry_after)))}
    return Refusal(status, f"{error} Send the request again later.", kind=SERVER, code="upstream_failed", headers=headers)
