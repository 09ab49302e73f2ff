"""From a request's fields to how an answer is drawn. Where a field is absent, OpenAI's default holds."""

from __future__ import annotations

import json
import re
import secrets
from typing import Any

from foreword.gateway.errors import Refusal
from foreword.gateway.wire import ChatRequest, Drawing, ObjectFormat, SchemaFormat
from foreword.types import Constraint, Sampling

TEMPERATURE = 1.0
MOST_BIASES = 1_024
_SEEDS = 2**63
_TOKEN_ID = re.compile(r"[0-9]{1,9}")


def sampling_of(body: Drawing, *, max_new_tokens: int, logprobs: int | None, seed: int) -> Sampling:
    """How one answer is drawn.

    Raises:
        Refusal: two constraints at once, or a bias for what is no token id.
    """
    return Sampling(
        max_new_tokens=max_new_tokens,
        temperature=TEMPERATURE if body.temperature is None else body.temperature,
        top_p=1.0 if body.top_p is None else body.top_p,
        top_k=max(body.top_k or 0, 0),
        min_p=body.min_p or 0.0,
        repetition_penalty=1.0 if body.repetition_penalty is None else body.repetition_penalty,
        presence_penalty=body.presence_penalty or 0.0,
        frequency_penalty=body.frequency_penalty or 0.0,
        logit_bias=_biases(body.logit_bias),
        logprobs=logprobs,
        seed=seed,
        stop=_stops(body.stop),
        ignore_end=bool(body.ignore_eos),
        constraint=constraint_of(body),
    )


def seeds(body: Drawing, count: int) -> list[int]:
    """A seed for each of a request's answers: from the request's own where it has one, else new each time."""
    first = secrets.randbelow(_SEEDS) if body.seed is None else body.seed % _SEEDS
    return [(first + index) % _SEEDS for index in range(count)]


def most_tokens(body: ChatRequest) -> int | None:
    """Tokens at most of an answer; None where the client leaves it open. Raises `Refusal` where it says two things."""
    given = {length for length in (body.max_tokens, body.max_completion_tokens) if length is not None}
    if len(given) > 1:
        raise Refusal(
            400, "`max_tokens` and `max_completion_tokens` differ. Send one of them.", code="invalid_value", param="max_completion_tokens"
        )
    return next(iter(given), None)


def constraint_of(body: Drawing) -> Constraint | None:
    """What the answer must look like. Raises `Refusal` where a request asks for two things at once."""
    wanted: dict[str, Constraint] = {}
    if body.guided_regex is not None:
        wanted["guided_regex"] = Constraint(kind="regex", value=body.guided_regex)
    if body.guided_choice is not None:
        wanted["guided_choice"] = Constraint(kind="choice", value=json.dumps(body.guided_choice))
    if body.guided_json is not None:
        wanted["guided_json"] = Constraint(kind="json-schema", value=_schema_text(body.guided_json))
    if isinstance(body, ChatRequest) and isinstance(body.response_format, ObjectFormat):
        wanted["response_format"] = Constraint(kind="json-object")
    if isinstance(body, ChatRequest) and isinstance(body.response_format, SchemaFormat):
        wanted["response_format"] = Constraint(kind="json-schema", value=_schema_text(body.response_format.json_schema.schema))
    if len(wanted) > 1:
        names = " and ".join(f"`{name}`" for name in wanted)
        raise Refusal(400, f"{names} cannot hold at once. Send one of them.", code="invalid_constraint", param=next(iter(wanted)))
    return next(iter(wanted.values()), None)


def _schema_text(schema: dict[str, Any] | str) -> str:
    return schema if isinstance(schema, str) else json.dumps(schema)


def _stops(stop: str | list[str] | None) -> tuple[str, ...]:
    return () if stop is None else (stop,) if isinstance(stop, str) else tuple(stop)


def _biases(biases: dict[str, float] | None) -> tuple[tuple[int, float], ...]:
    if not biases:
        return ()
    if len(biases) > MOST_BIASES:
        raise Refusal(
            400, f"`logit_bias` takes {MOST_BIASES:,} tokens at most; got {len(biases):,}.", code="invalid_value", param="logit_bias"
        )
    wrong = next((key for key in biases if not _TOKEN_ID.fullmatch(key)), None)
    if wrong is not None:
        raise Refusal(
            400, f'`logit_bias` takes token ids; got {wrong[:40]!r}. Write them as "42".', code="invalid_value", param="logit_bias"
        )
    return tuple((int(key), value) for key, value in biases.items())
