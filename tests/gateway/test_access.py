"""Around every request: ids, the log, and what nobody expected."""

from __future__ import annotations

import logging
import re
from typing import Any

import pytest

LINE = re.compile(r"(GET|POST|-) (\S+) (\d{3}) [0-9.]+ ms (\S+)")


@pytest.mark.parametrize("given", ["my-id_1.2", "a" * 64])
def test_a_harmless_id_comes_back(http: Any, given: str):
    assert http.get("/healthz", headers={"x-request-id": given}).headers["x-request-id"] == given


@pytest.mark.parametrize("given", ["", "a b", "a" * 65, "x;y", "<script>", "é"])
def test_another_one_is_replaced(http: Any, given: str):
    answer = http.get("/healthz", headers={"x-request-id": given.encode("latin-1")})
    assert re.fullmatch(r"req-[0-9a-f]{24}", answer.headers["x-request-id"])


def test_errors_have_an_id_too(http: Any):
    assert http.get("/nowhere", headers={"x-request-id": "abc"}).headers["x-request-id"] == "abc"


def test_a_line_of_the_log(http: Any, caplog: pytest.LogCaptureFixture, wait_until: Any):
    caplog.set_level(logging.INFO, logger="foreword.gateway.access")
    http.get("/v1/models/echo:support?key=secret", headers={"x-request-id": "abc"})
    http.request("BREW", "/v1/models", headers={"x-request-id": "def"})

    def lines() -> list[str]:
        return [record.getMessage() for record in caplog.records if record.name == "foreword.gateway.access"]

    wait_until(lambda: len(lines()) == 2)
    matches = [LINE.fullmatch(line) for line in lines()]
    assert [match.groups() for match in matches if match] == [
        ("GET", "/v1/models/{model}", "200", "abc"),
        ("-", "/v1/models", "405", "def"),
    ]


def test_an_unexpected_error_is_500_and_tells_nothing(start: Any, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.DEBUG)
    server = start()
    server.engine.submit = None  # an engine that does not keep to its protocol
    with server.http() as http:
        body = {"model": "echo", "messages": [{"role": "user", "content": "a secret"}]}
        answer = http.post("/v1/chat/completions", json=body, headers={"x-request-id": "abc"})
    assert answer.status_code == 500 and "abc" in answer.json()["error"]["message"] and "NoneType" not in answer.text
    logged = "\n".join(record.getMessage() for record in caplog.records if record.name == "foreword.gateway.access" or record.levelno >= 40)
    assert "request abc failed with TypeError" in logged and "bridge.py" in logged and "a secret" not in logged
