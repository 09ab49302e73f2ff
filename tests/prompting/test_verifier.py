"""What a verifier is, and how one is found."""

from __future__ import annotations

import asyncio

import pytest

from asking import QUESTION
from foreword.errors import RegistryError
from foreword.prompting import verifier
from foreword.prompting.verifier import Verdict


async def no_model(*conversation, **changes):
    raise AssertionError("this verifier computes")


def test_only_a_full_score_passes() -> None:
    assert Verdict(score=1.0).passed
    assert not Verdict(score=0.999, reason="nearly").passed


def test_found_by_name() -> None:
    assert {"equations", "json-object", "self-judged"} <= set(verifier.names())
    verdict = asyncio.run(verifier.get("json-object")(QUESTION, "{}", no_model))
    assert verdict.passed


def test_an_unknown_one_is_told_with_those_there_are() -> None:
    with pytest.raises(RegistryError, match="json-object"):
        verifier.get("json")
