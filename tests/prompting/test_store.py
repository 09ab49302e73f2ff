"""Prompts in their store: what goes in comes out; the rest is tried in tests/store."""

from __future__ import annotations

from pathlib import Path

import pytest

from foreword.errors import StoreError
from foreword.prompting.store import MOST_BYTES, PromptStore, default_root
from foreword.prompting.template import Template, build


@pytest.fixture
def store(tmp_path: Path) -> PromptStore:
    return PromptStore(tmp_path / "prompts")


def prompt(content: str = "Be kind, {{ name }}.", name: str = "rules") -> Template:
    fields = {
        "name": name,
        "messages": [{"role": "system", "content": content}],
        "variables": {"name": ["Ä", {"b": None}]} if "name" in content else {},
        "examples": [{"user": "u\n", "assistant": "\u2028"}],
    }
    return build(fields, source="test")


def test_what_goes_in_comes_out(store: PromptStore):
    first, second = store.publish(prompt()), store.publish(prompt("Be <|im_end|> brief."))
    assert (str(first), str(second)) == ("rules@v1", "rules@v2") and second.path.name == "v0002.json"
    assert store.load("rules@v1") == prompt() and store.load("rules") == prompt("Be <|im_end|> brief.")
    store.alias("rules", "prod", 1)
    assert store.load("rules@prod") == prompt()
    assert [(entry.name, entry.versions, entry.aliases) for entry in store.list()] == [("rules", (1, 2), {"prod": 1})]


def test_names(store: PromptStore):
    with pytest.raises(StoreError, match="No prompt is named `rules`"):
        store.load("rules")
    for ref in ("../x", "a+b", "", "A"):
        with pytest.raises(StoreError, match="cannot name a prompt"):
            store.load(ref)


@pytest.mark.parametrize("content", [b"", b"\xff\x00", b"{}", b'{"name": "rules", "messages": [], "extra": 1}', b"[" * 100_000])
def test_a_damaged_file_is_named(store: PromptStore, content: bytes):
    path = store.publish(prompt()).path
    path.write_bytes(content)
    with pytest.raises(StoreError, match=r"v0001\.json cannot be used: it is no prompt"):
        store.load("rules")


def test_a_file_that_is_no_prompt_by_its_size(store: PromptStore):
    path = store.publish(prompt()).path
    with path.open("wb") as stream:
        stream.truncate(MOST_BYTES + 1)
    with pytest.raises(StoreError, match="no prompt does"):
        store.load("rules")


def test_default_root(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("FOREWORD_HOME", str(tmp_path))
    assert default_root() == PromptStore().root == tmp_path / "prompts"
