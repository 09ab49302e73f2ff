"""`POST /v1/completions`: one or several texts to go on from."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from msgspec import UNSET
from starlette.requests import Request
from starlette.responses import Response

from foreword.engine import Request as EngineRequest
from foreword.gateway.answering import Head, Part, Plan, answer
from foreword.gateway.errors import Refusal
from foreword.gateway.gating import gated
from foreword.gateway.logprobs import text_logprobs
from foreword.gateway.reading import read
from foreword.gateway.sampling import sampling_of, seeds
from foreword.gateway.service import service_of
from foreword.gateway.strategies import is_strategy
from foreword.gateway.wire import MOST_CHOICES, TextAnswer, TextChoice, TextRequest, UsageOut
from foreword.types import Delta

_DECODER = msgspec.json.Decoder(TextRequest)


async def completions(request: Request) -> Response:
    """Goes on from texts."""
    service = service_of(request)
    tenant = service.tenant(request)
    body = await read(request, _DECODER, most_bytes=service.body_bytes)
    _check(body)
    prompts = to_prompts(body)
    named = await service.names.named(body.model, tenant)
    judged = await gated(service.gate, named, [(prompt,) for prompt in prompts])
    count = body.n or 1
    drawn = seeds(body, count)

    def requests(most_tokens: int) -> list[EngineRequest]:
        samplings = [sampling_of(body, max_new_tokens=most_tokens, logprobs=body.logprobs, seed=seed) for seed in drawn]
        pairs = list(zip(prompts, judged.named, strict=True))
        return [EngineRequest(text=prompt, prefix=one.files, sampling=sampling) for prompt, one in pairs for sampling in samplings]

    include_usage = body.stream_options is not None and bool(body.stream_options.include_usage)
    shape = TextShape(with_logprobs=body.logprobs is not None, with_usage=include_usage)
    plan = Plan(
        named=named,
        shape=shape,
        requests=requests,
        per_prompt=count,
        most_tokens=body.max_tokens,
        stream=bool(body.stream),
        include_usage=include_usage,
        headers=judged.headers,
    )
    return await answer(request, service, plan)


def to_prompts(body: TextRequest) -> tuple[str, ...]:
    """The texts. Raises `Refusal` for token ids, and for more answers than one request may ask for."""
    prompts: list[str] = []
    for prompt in (body.prompt,) if isinstance(body.prompt, str) else body.prompt:
        if not isinstance(prompt, str):
            raise Refusal(
                400, "`prompt` must be a text or a list of texts; this server takes no token ids.", code="invalid_value", param="prompt"
            )
        prompts.append(prompt)
    if len(prompts) * (body.n or 1) > MOST_CHOICES:
        raise Refusal(
            400,
            f"One request may ask for {MOST_CHOICES} answers at most; got {len(prompts)} prompts × {body.n or 1}. Send several requests.",
            code="invalid_value",
            param="prompt",
        )
    return tuple(prompts)


def _check(body: TextRequest) -> None:
    if is_strategy(body.model):
        raise Refusal(
            400, "Strategies answer conversations. Send this one to `/v1/chat/completions`.", code="unsupported_model", param="model"
        )
    if body.echo:
        raise Refusal(400, "This server does not send the prompt back. Leave `echo` out.", code="unsupported_parameter", param="echo")
    if body.suffix:
        raise Refusal(400, "This server does not fill gaps. Leave `suffix` out.", code="unsupported_parameter", param="suffix")
    if body.best_of is not None and body.best_of != (body.n or 1):
        raise Refusal(400, "`best_of` must equal `n` here. Leave it out.", code="unsupported_parameter", param="best_of")


class TextShape:
    """Text completions and their chunks, for one request."""

    id_start = "cmpl"

    def __init__(self, *, with_logprobs: bool, with_usage: bool) -> None:
        self._with_logprobs = with_logprobs
        self._no_usage = None if with_usage else UNSET
        self._written: dict[int, int] = {}

    def whole(self, head: Head, parts: Sequence[Part], usage: UsageOut) -> bytes:
        """A `text_completion`."""
        choices = [
            TextChoice(
                index=index,
                text="".join(part.text),
                logprobs=text_logprobs(part.logprobs, start=0) if self._with_logprobs else None,
                finish_reason="length" if part.finish_reason == "length" else "stop",
            )
            for index, part in enumerate(parts)
        ]
        return msgspec.json.encode(TextAnswer(id=head.id, created=head.created, model=head.model, choices=choices, usage=usage))

    def opening(self, head: Head, index: int) -> bytes:
        """Nothing: a text has no role."""
        return b""

    def chunks(self, head: Head, index: int, delta: Delta) -> list[bytes]:
        """One chunk, where there is something to tell."""
        with_logprobs = self._with_logprobs and bool(delta.logprobs)
        if not delta.text and not with_logprobs and delta.finish_reason is None:
            return []
        start = self._written.get(index, 0)
        # Text may lag behind its tokens, so offsets follow the tokens.
        self._written[index] = start + sum(len(token.text) for token in delta.logprobs)
        choice = TextChoice(
            index=index,
            text=delta.text,
            logprobs=text_logprobs(delta.logprobs, start=start) if with_logprobs else None,
            finish_reason=None if delta.finish_reason is None else "length" if delta.finish_reason == "length" else "stop",
        )
        return [msgspec.json.encode(TextAnswer(id=head.id, created=head.created, model=head.model, choices=[choice], usage=self._no_usage))]

    def usage_chunk(self, head: Head, usage: UsageOut) -> bytes:
        """A chunk without choices."""
        return msgspec.json.encode(TextAnswer(id=head.id, created=head.created, model=head.model, choices=[], usage=usage))
