"""Each error's status, and what its message must not tell."""

from __future__ import annotations

import json

import pytest

from foreword import errors
from foreword.gateway.errors import refusal_of

PATH = "/home/somebody/prefixes/x/v0001.safetensors"

CASES = [
    (errors.Overloaded("full", retry_after=2.2), 429, "overloaded"),
    (errors.ConstraintError("bad grammar"), 400, "invalid_constraint"),
    (errors.ServingError(f"closing {PATH}"), 503, "unavailable"),
    (errors.WindowError("too long"), 400, "context_length_exceeded"),
    (errors.ConfigError("top_p"), 400, "invalid_value"),
    (errors.StoreError(f"none in {PATH}"), 404, "model_not_found"),
    (errors.PrefixMismatch("x", {"weights": ("a" * 64, "b" * 64)}), 422, "prefix_mismatch"),
    (errors.PrefixFileError(f"{PATH} is truncated"), 503, "prefix_unavailable"),
    (errors.PrefixError(f"{PATH} cannot be moved"), 422, "prefix_unusable"),
    (errors.ModelError(f"{PATH} is gone"), 500, "internal_error"),
]


@pytest.mark.parametrize(("error", "status", "code"), CASES, ids=lambda value: type(value).__name__)
def test_status_code_and_body(error: errors.ForewordError, status: int, code: str):
    refusal = refusal_of(error)
    body = json.loads(refusal.body)["error"]
    assert (refusal.status, body["code"]) == (status, code)
    assert set(body) == {"message", "type", "param", "code"} and body["message"]
    assert "somebody" not in body["message"] and "a" * 64 not in body["message"]
    assert refusal.response().media_type == "application/json"


def test_when_to_come_again():
    assert refusal_of(CASES[0][0]).headers == {"retry-after": "3"}
    assert refusal_of(errors.Overloaded("full", retry_after=0.0)).headers == {"retry-after": "1"}


def test_a_mismatch_names_the_fields():
    assert "weights" in str(refusal_of(CASES[6][0]))


def test_messages_are_bounded():
    assert len(refusal_of(errors.ConstraintError("x" * 100_000)).detail.message) <= 1_000
