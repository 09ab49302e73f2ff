"""Keys, and who sees which prefix."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import openai
import pytest

from foreword.errors import ConfigError
from foreword.gateway.errors import Refusal
from foreword.gateway.tenants import admin_key, parse_keys, read_keys

KEYS = """
# who may come
key-of-anna   anna   anna   support
key-of-ben    ben    ben*
key-of-boss   boss
"""
MESSAGES: Any = [{"role": "user", "content": "a secret of mine"}]


@pytest.fixture
def guarded(start: Any) -> Any:
    return start(keys=parse_keys(KEYS, source="test"), admin_key=admin_key("key-of-admin"))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "holds no API key"),
        ("# nothing", "holds no API key"),
        ("secret-key-1", "line 1 of test must read"),
        ("short x", "the key in line 1 of test must have 8 or more"),
        ("\nsecret-key-1 a\nsecret-key-1 b", "line 3 of test gives a key for the second time"),
        ("secret-key-1 a ../x", "line 1 of test has a pattern that matches no prefix: '../x'"),
        ("sécret-key-1 a", "ASCII"),
    ],
)
def test_keys_that_cannot_be_used(text: str, words: str):
    with pytest.raises(ConfigError) as refused:
        parse_keys(text, source="test")
    assert words in str(refused.value) and "secret" not in str(refused.value)


def test_keys_of_a_file(tmp_path: Path):
    (tmp_path / "keys").write_text(KEYS)
    assert read_keys(tmp_path / "keys").tenant("bearer key-of-ben").name == "ben"
    with pytest.raises(ConfigError, match="No such file"):
        read_keys(tmp_path / "none")
    (tmp_path / "keys").write_bytes(b"\xff")
    with pytest.raises(ConfigError, match="not UTF-8"):
        read_keys(tmp_path / "keys")


@pytest.mark.parametrize(
    "header", [None, "", "Bearer", "Bearer ", "Basic key-of-ben", "key-of-ben", "Bearer key-of-be", "Bearer key-of-ben x", "Bearer \udcff"]
)
def test_what_is_no_key(header: str | None):
    with pytest.raises(Refusal) as refused:
        parse_keys(KEYS, source="test").tenant(header)
    assert refused.value.status == 401 and "key-of" not in str(refused.value)
    with pytest.raises(Refusal):
        admin_key("key-of-admin").check(header)


def test_patterns():
    keys = parse_keys("key-of-team team user-* task", source="test")
    tenant = keys.tenant("Bearer key-of-team")
    assert tenant.sees("user-7") and tenant.sees("task") and tenant.sees("task+user-7")
    assert not any(tenant.sees(name) for name in ("user", "task2", "user-7+secret", "secret+user-7", "", "other"))


def test_a_tenant_uses_and_sees_its_own(guarded: Any):
    seen = {}
    for name in ("anna", "ben", "boss"):
        with guarded.client(f"key-of-{name}") as client:
            seen[name] = [card.id for card in client.models.list() if not card.id.startswith("strategy:")]
            assert client.chat.completions.create(model="echo", messages=MESSAGES).choices[0].message.content == "a secret of mine"
    assert seen == {
        "anna": ["echo", "echo:anna", "echo:support", "echo:support@prod"],
        "ben": ["echo", "echo:ben"],
        "boss": ["echo", "echo:anna", "echo:ben", "echo:support", "echo:support@prod"],
    }
    with guarded.client("key-of-ben") as ben:
        assert ben.chat.completions.create(model="echo:ben", messages=MESSAGES).choices[0].message.content == "[ben] a secret of mine"
        for model in ("echo:anna", "echo:support", "echo:support@prod", "echo:ben+anna", "echo:never-was"):
            for ask in (
                lambda model=model: ben.chat.completions.create(model=model, messages=MESSAGES),
                lambda model=model: ben.completions.create(model=model, prompt="x"),
                lambda model=model: ben.models.retrieve(model),
            ):
                with pytest.raises(openai.NotFoundError) as refused:
                    ask()
                assert refused.value.code == "model_not_found"


def test_without_a_key_nothing_but_health(guarded: Any):
    with guarded.http() as http:
        for method, path in (
            ("POST", "chat/completions"),
            ("POST", "completions"),
            ("POST", "embeddings"),
            ("GET", "models"),
            ("GET", "models/echo"),
        ):
            answer = http.request(method, f"/v1/{path}", json={})
            assert answer.status_code == 401 and answer.headers["www-authenticate"] == "Bearer"
            assert answer.json()["error"]["code"] == "invalid_api_key"
        assert http.get("/metrics").status_code == http.get("/admin/prefixes").status_code == 401
        assert http.get("/healthz").status_code == http.get("/readyz").status_code == http.get("/openapi.json").status_code == 200
    with guarded.http("key-of-boss") as http:
        assert http.get("/metrics").status_code == http.get("/admin/prefixes").status_code == 401
    with guarded.http("key-of-admin") as http:
        assert http.get("/metrics").status_code == http.get("/admin/prefixes").status_code == 200
        assert http.get("/v1/models").status_code == 401


def test_figures_stay_shut_where_there_is_no_admin_key(start: Any):
    with start(keys=parse_keys(KEYS, source="test")).http("key-of-boss") as http:
        assert http.get("/metrics").status_code == 404


def test_nothing_of_a_request_is_logged(guarded: Any, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.DEBUG)
    with guarded.client("key-of-ben") as client:
        client.chat.completions.create(model="echo:ben", messages=MESSAGES)
        for wrong in ({"model": "echo:hidden-name", "messages": MESSAGES}, {"model": "echo", "messages": MESSAGES, "temperature": 9}):
            with pytest.raises(openai.APIStatusError):
                client.chat.completions.create(**wrong)
    ours = [record.getMessage() for record in caplog.records if record.name.startswith(("foreword", "_granian", "granian"))]
    assert len(ours) >= 3
    assert [line for line in ours if any(word in line for word in ("secret of mine", "key-of", "hidden-name"))] == []
