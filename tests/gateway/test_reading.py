"""Bodies: size, type, form."""

from __future__ import annotations

import socket
from typing import Any

import pytest

CHAT = "/v1/chat/completions"
JSON = {"content-type": "application/json"}


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"nul", b"\xff", b"[" * 100_000, b'{"a"' * 50_000, b'{"model":"\xc3\x28"}', b"\xef\xbb\xbf{}", b'{"model": "a\x00"}'],
    ids=lambda body: repr(body[:8]),
)
def test_what_is_not_json(http: Any, body: bytes):
    answer = http.post(CHAT, content=body, headers=JSON)
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["code"] in ("invalid_json", "invalid_value")


def test_deep_nesting_where_anything_goes(http: Any):
    for field, status in (("metadata", 400), ("odd", 400)):
        deep = b'{"model": "echo", "messages": [{"role": "user", "content": "x"}], "%b": %b}' % (
            field.encode(),
            b"[" * 200_000 + b"]" * 200_000,
        )
        assert http.post(CHAT, content=deep, headers=JSON).status_code == status


@pytest.mark.parametrize("body", [b"[]", b"1", b"null", b'"x"'])
def test_json_that_is_no_object(http: Any, body: bytes):
    error = http.post(CHAT, content=body, headers=JSON).json()["error"]
    assert "Expected `object`" in error["message"] and error["param"] is None


@pytest.mark.parametrize("number", [b"1e999", b"-1e999", b"9" * 400, b"NaN", b"Infinity"])
def test_numbers_that_are_none(http: Any, number: bytes):
    body = b'{"model": "echo", "messages": [{"role": "user", "content": "x"}], "temperature": %b}' % number
    assert http.post(CHAT, content=body, headers=JSON).status_code == 400


def test_the_body_is_bounded(start: Any):
    server = start(body_bytes=200)
    fits = b'{"model": "echo", "messages": [{"role": "user", "content": "x"}]}'
    with server.http() as http:
        assert http.post(CHAT, content=fits.ljust(200), headers=JSON).status_code == 200
        declared = http.post(CHAT, content=fits.ljust(201), headers=JSON)
        chunked = http.post(CHAT, content=(fits.ljust(100) for _ in range(1_000)), headers=JSON)
        for refused in (declared, chunked):
            assert refused.status_code == 413 and refused.json()["error"]["code"] == "body_too_large"
        assert http.post(CHAT, content=fits, headers=JSON).status_code == 200


def test_a_body_that_says_that_it_is_too_large_is_not_waited_for(server: Any):
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        head = f"POST {CHAT} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {10**12}\r\n\r\n"
        connection.sendall(head.encode())
        assert connection.recv(12) == b"HTTP/1.1 413"


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "", "application/jsonp"])
def test_a_body_must_say_that_it_is_json(http: Any, kind: str):
    answer = http.post(CHAT, content=b"{}", headers={"content-type": kind})
    assert answer.status_code == 415 and "Content-Type: application/json" in answer.json()["error"]["message"]


def test_json_with_a_character_set(http: Any):
    body = '{"model": "echo", "messages": [{"role": "user", "content": "é"}]}'.encode()
    answer = http.post(CHAT, content=body, headers={"content-type": "Application/JSON; charset=utf-8"})
    assert answer.json()["choices"][0]["message"]["content"] == "é"
