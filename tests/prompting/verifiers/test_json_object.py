"""`json-object`."""

from __future__ import annotations

import asyncio

import pytest

from asking import QUESTION
from foreword.prompting.verifier import Verdict
from foreword.prompting.verifiers import json_object


async def no_model(*conversation, **changes):
    raise AssertionError("this verifier computes")


def verdict(answer: str) -> Verdict:
    return asyncio.run(json_object.verify(QUESTION, answer, no_model))


@pytest.mark.parametrize("answer", ['{"a": 1}', 'Here you are:\n```json\n{"a": {"b": [1, 2]}}\n```\nBye.', "{}"])
def test_one_object(answer: str) -> None:
    assert verdict(answer).passed


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("no braces", "no JSON objects"),
        ("[1, 2]", "no JSON objects"),
        ('{"a": 1} and {"b": 2}', "2 JSON objects"),
        ("{a: 1}", "property name"),
        ('{a: {"b": 1}}', "character 0"),
        ('{"a": NaN}', "beyond it"),
        ('{"a": 1', "character"),
        ('{"a":' * 100_000, "characters"),
        ('{"a":' * 20_000, "beyond it"),
        ('{"a": ' + "9" * 5_000 + "}", "beyond it"),
    ],
)
def test_anything_else_is_told(answer: str, reason: str) -> None:
    found = verdict(answer)
    assert found.score == 0 and reason in found.reason and len(found.reason) < 300
