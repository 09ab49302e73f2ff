"""From fields to how an answer is drawn."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from foreword.gateway.errors import Refusal
from foreword.gateway.sampling import constraint_of, sampling_of, seeds
from foreword.gateway.wire import ChatRequest
from foreword.types import Constraint, Sampling

DECODER = msgspec.json.Decoder(ChatRequest)


def request(**fields: Any) -> ChatRequest:
    return DECODER.decode(json.dumps({"model": "m", "messages": [{"role": "user", "content": "x"}], **fields}))


def test_what_is_absent_is_openais_default():
    assert sampling_of(request(), max_new_tokens=7, logprobs=None, seed=3) == Sampling(max_new_tokens=7, temperature=1.0, seed=3)


def test_every_field_arrives():
    fields = {
        **{"temperature": 0, "top_p": 0.9, "top_k": 5, "min_p": 0.1, "repetition_penalty": 1.2},
        **{"presence_penalty": 0.5, "frequency_penalty": -1},
        **{"logit_bias": {"42": -100, "7": 1.5}, "stop": ["a", "b"], "ignore_eos": True},
    }  # fmt: skip
    assert sampling_of(request(**fields), max_new_tokens=1, logprobs=4, seed=0) == Sampling(
        max_new_tokens=1,
        temperature=0.0,
        top_p=0.9,
        top_k=5,
        min_p=0.1,
        repetition_penalty=1.2,
        presence_penalty=0.5,
        frequency_penalty=-1.0,
        logit_bias=((42, -100.0), (7, 1.5)),
        logprobs=4,
        seed=0,
        stop=("a", "b"),
        ignore_end=True,
    )


def test_seeds():
    assert seeds(request(seed=5), 3) == [5, 6, 7] and len(set(seeds(request(), 3))) == 3
    assert seeds(request(), 1) != seeds(request(), 1), "two requests without a seed draw differently"
    assert all(0 <= seed < 2**63 for seed in seeds(request(seed=-1), 3))


@pytest.mark.parametrize(
    ("fields", "constraint"),
    [
        ({}, None),
        ({"response_format": {"type": "text"}}, None),
        ({"response_format": {"type": "json_object"}}, Constraint(kind="json-object")),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}, "strict": True}}},
            Constraint(kind="json-schema", value='{"type": "object"}'),
        ),
        ({"guided_json": {"type": "object"}}, Constraint(kind="json-schema", value='{"type": "object"}')),
        ({"guided_json": '{"type": "null"}'}, Constraint(kind="json-schema", value='{"type": "null"}')),
        ({"guided_regex": "a+"}, Constraint(kind="regex", value="a+")),
        ({"guided_choice": ["yes", "no"]}, Constraint(kind="choice", value='["yes", "no"]')),
    ],
)
def test_constraints(fields: dict[str, Any], constraint: Constraint | None):
    assert constraint_of(request(**fields)) == constraint


def test_too_many_biases():
    with pytest.raises(Refusal, match="1,024 tokens at most"):
        sampling_of(request(logit_bias={str(number): 1 for number in range(1_025)}), max_new_tokens=1, logprobs=None, seed=0)
