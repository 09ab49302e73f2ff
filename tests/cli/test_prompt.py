"""`foreword prompt`: adding, listing, showing, rendering, comparing, naming and removing prompts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from foreword.prompting.store import PromptStore

SUPPORT = """
[[messages]]
role = "system"
content = "Answer in one sentence."

[[messages]]
role = "user"
content = '''
{% if shop %}
A customer of {{ shop }} asks:
{% endif %}
{{ question }}'''

[[examples]]
user = "Where is my parcel?"
assistant = "It has left our house."

[variables]
shop = "Larkspur"
"""


@pytest.fixture
def write(tmp_path: Path) -> Any:
    def written(name: str, content: str | bytes) -> Path:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return written


@pytest.fixture
def store(home: Path) -> PromptStore:
    return PromptStore(home / "prompts")


@pytest.fixture
def support(foreword: Any, write: Any, store: PromptStore) -> PromptStore:
    """A store with `support@v1`."""
    assert foreword("prompt", "add", write("support.toml", SUPPORT)).exit_code == 0
    return store


def test_add(foreword: Any, write: Any, store: PromptStore):
    path = write("support.toml", SUPPORT)
    result = foreword("prompt", "add", path)
    assert result.exit_code == 0 and result.stderr == ""
    assert result.stdout == 'support@v1: 2 messages, 1 example, variables question, shop ("Larkspur"), fixed: the first 3 messages\n'
    found = json.loads(foreword("prompt", "add", path, "--json").stdout)
    assert found == {
        "reference": "support@v2",
        "path": str(store.resolve("support").path),
        "messages": 2,
        "examples": 1,
        "required": ["question"],
        "defaults": {"shop": "Larkspur"},
        "fixed": 3,
    }
    assert foreword("prompt", "add", path, "--name", "desk").stdout.startswith("desk@v1: ")
    assert store.load("desk").messages == store.load("support").messages


def test_add_a_plain_text(foreword: Any, write: Any, store: PromptStore):
    assert foreword("prompt", "add", write("rules.md", "# Rules\n\nBe kind.\n")).stdout == "rules@v1: 1 message, fixed: the first message\n"
    assert foreword("prompt", "add", "-", "--name", "piped", input="Work for {{ shop }}.").stdout == (
        "piped@v1: 1 message, variables shop, nothing fixed\n"
    )
    assert [message.content for message in store.load("rules").render()] == ["# Rules\n\nBe kind."]


def test_an_empty_store(foreword: Any, tmp_path: Path):
    result = foreword("prompt", "ls", "--root", tmp_path / "none")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "No prompts in" in result.stderr and "foreword prompt add FILE" in result.stderr
    assert foreword("prompt", "ls", "--json").stdout == "[]\n"


def test_ls(foreword: Any, write: Any, support: PromptStore):
    foreword("prompt", "add", write("support.toml", SUPPORT))
    foreword("prompt", "add", write("rules.txt", "Be kind."))
    support.alias("support", "prod", 2)
    table = foreword("prompt", "ls").stdout
    assert "support@v2" in table and "support@v1" not in table and 'question, shop = "Larkspur"' in table and "prod" in table
    rows = json.loads(foreword("prompt", "ls", "--json").stdout)
    assert [(row["reference"], row["aliases"], row["versions"], row["fixed"]) for row in rows] == [
        ("rules@v1", [], 1, 1),
        ("support@v2", ["prod"], 2, 3),
    ]
    versions = json.loads(foreword("prompt", "ls", "support", "--json").stdout)
    assert [row["reference"] for row in versions] == ["support@v1", "support@v2"]
    support.resolve("rules").path.write_text("junk")
    assert "damaged" in foreword("prompt", "ls").stdout
    assert "damage" in json.loads(foreword("prompt", "ls", "rules", "--json").stdout)[0]


def test_show(foreword: Any, support: PromptStore):
    result = foreword("prompt", "show", "support@v1")
    lines = result.stdout.splitlines()
    assert lines[:2] == ["[system]", "Answer in one sentence."] and "{{ question }}" in lines
    assert lines[-2:] == ["[variables]", 'shop = "Larkspur"'] and "[example: assistant]" in lines
    assert "fixed: the first 3 messages" in result.stderr
    fields = json.loads(foreword("prompt", "show", "support", "--json").stdout)
    assert fields["reference"] == "support@v1" and fields["prompt"] == support.load("support").model_dump(mode="json")


def test_render(foreword: Any, support: PromptStore):
    result = foreword("prompt", "render", "support", "question=Why = so?")
    assert result.stdout == (
        "[system]\nAnswer in one sentence.\n\n[user]\nWhere is my parcel?\n\n[assistant]\nIt has left our house.\n\n"
        "[user]\nA customer of Larkspur asks:\nWhy = so?\n"
    )
    messages = json.loads(foreword("prompt", "render", "support@v1", "question=é\x1b", "shop=", "--json").stdout)
    assert messages[-1] == {"role": "user", "content": "é\x1b"} and [message["role"] for message in messages] == [
        *("system", "user", "assistant", "user")
    ]
    assert "\x1b" not in foreword("prompt", "render", "support", "question=\x1b[31m").stdout


def test_diff(foreword: Any, write: Any, support: PromptStore):
    foreword("prompt", "add", write("support.toml", SUPPORT.replace("one sentence", "two sentences")))
    result = foreword("prompt", "diff", "support@v1", "support")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[:2] == ["--- support@v1", "+++ support@v2"]
    assert "-Answer in one sentence." in lines and "+Answer in two sentences." in lines
    assert json.loads(foreword("prompt", "diff", "support@v1", "support", "--json").stdout)["lines"] == lines
    same = foreword("prompt", "diff", "support", "support@v2")
    assert (same.exit_code, same.stdout) == (0, "") and "are the same" in same.stderr


def test_alias_and_rm(foreword: Any, write: Any, support: PromptStore):
    foreword("prompt", "add", write("support.toml", SUPPORT))
    assert foreword("prompt", "alias", "support@v1", "prod").stdout == "support@prod is now support@v1\n"
    refused = foreword("prompt", "rm", "support@v1")
    assert refused.exit_code == 2 and "is in use: prod points at it" in refused.stderr
    assert json.loads(foreword("prompt", "alias", "support", "prod", "--json").stdout) == {
        "alias": "support@prod",
        "reference": "support@v2",
    }
    assert foreword("prompt", "rm", "support@v1").stdout == "Removed support@v1\n"
    assert foreword("prompt", "alias", "support", "prod", "--remove").stdout == "support@prod is forgotten\n"
    assert json.loads(foreword("prompt", "rm", "support", "--all", "--json").stdout) == {"removed": ["support@v2"]}
    assert support.list() == ()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("binary.md", b"\x89PNG\r\n\x1a\n\x00\x00", "is no text: it has a NUL byte"),
        ("latin.md", "Grüße".encode("latin1"), "is not UTF-8"),
        ("empty.md", "", "is empty"),
        ("prompt.json", "{}", "is no prompt file: a prompt is TOML"),
        ("prompt.yaml", "a: b", "is no prompt file: a prompt is TOML"),
        ("broken.toml", "= 1", "broken.toml` is no TOML"),
        ("keys.toml", SUPPORT + "\n[defaults]\nshop = 'x'", "`defaults`: Extra inputs are not permitted"),
        ("role.toml", SUPPORT.replace("system", "tool"), "`messages.0.role`: Input should be 'system', 'user' or 'assistant'"),
        ("syntax.toml", SUPPORT.replace("{{ question }}", "{{ question"), "`messages.1`, line 4:"),
        ("dunder.toml", SUPPORT.replace("{{ question }}", "{{ question.__class__ }}"), "`__class__` cannot be reached from a prompt"),
        ("unused.toml", SUPPORT + "shopp = 'x'", "`variables` has `shopp`, which no message uses"),
        ("Name.md", "Be kind.", "a name has 1 to 64 characters"),
    ],
)
def test_files_that_cannot_be_added(foreword: Any, write: Any, store: PromptStore, name: str, content: Any, message: str):
    result = foreword("prompt", "add", write(name, content))
    assert result.exit_code == 2 and message in result.stderr and result.stdout == ""
    assert store.list() == ()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("add", "missing.toml"), "There is no file `missing.toml`"),
        (("add", "-"), "Give one: `--name NAME`"),
        (("show", "suport"), "Did you mean `support`?"),
        (("show", "support@v9"), "Version 9 of `support` does not exist"),
        (("show", "../support"), "cannot name a prompt"),
        (("ls", "nope"), "No prompt is named `nope`"),
        (("render", "support"), "needs a value for `question`"),
        (("render", "support", "question"), "gives no variable a value"),
        (("render", "support", "question=a", "question=b"), "`question` has two values"),
        (("render", "support", "question=a", "colour=b"), "has no variable `colour`. It has `question`, `shop`"),
        (("diff", "support", "nope"), "No prompt is named `nope`"),
        (("rm", "support"), "is a whole name"),
        (("alias", "support", "v3"), "An alias has"),
    ],
)
def test_what_cannot_be_done(foreword: Any, support: PromptStore, words: tuple[str, ...], message: str):
    result = foreword("prompt", *words)
    assert result.exit_code == 2
    assert message in result.stderr and result.stdout == ""


def test_a_bomb_ends_with_a_message(foreword: Any, write: Any, support: PromptStore):
    bomb = "{% for a in range(100000) %}{% for b in range(100000) %}x{% endfor %}{% endfor %}"
    foreword("prompt", "add", write("bomb.txt", bomb))
    result = foreword("prompt", "render", "bomb")
    assert result.exit_code == 2 and "its loops take more than 100,000 steps" in result.stderr
