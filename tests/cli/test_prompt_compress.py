"""`foreword prompt audit` and `compress` on a tiny random model, and the counting of tokens."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from foreword.prompting.store import PromptStore

PROMPT = """
[[messages]]
role = "system"
content = "You are a clerk of the town hall. Please always answer the question carefully with one word. Do not say 42."
[[messages]]
role = "user"
content = "{{ text }}"
[[examples]]
user = "name 1"
assistant = "yes"
"""


@pytest.fixture
def stored(foreword: Any, tmp_path: Path, home: Path) -> PromptStore:
    (tmp_path / "hall.toml").write_text(PROMPT)
    assert foreword("prompt", "add", tmp_path / "hall.toml").exit_code == 0
    return PromptStore(home / "prompts")


def run(foreword: Any, command: str, tiny: Path, *options: object) -> Any:
    return foreword("prompt", command, "hall", "--model", tiny, "--dtype", "float32", *options)


def test_an_audit_says_what_each_part_is_worth(foreword: Any, tiny: Path, stored: PromptStore, train: Path, dev: Path):
    result = run(foreword, "audit", tiny, "--data", train, "--held-out", dev, "--calls", 400, "--max-new-tokens", 2, "--save", "--json")
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    assert len(found["lines"]) == 4 and found["tokens"][1] <= found["tokens"][0]
    # A random model is right about nothing, so nothing is lost by leaving out everything.
    assert found["reference"] == "hall@v2" and found["parts"]["removed"] == 4
    assert [turn.content for turn in stored.load("hall").messages] == ["{{ text }}"]
    assert found["held_out"]["before"]["rows"] == 6


def test_an_audit_as_a_table(foreword: Any, tiny: Path, stored: PromptStore, train: Path):
    result = run(foreword, "audit", tiny, "--data", train, "--calls", 400, "--max-new-tokens", 2, "--keep-examples", "--margin", "0.5")
    assert result.exit_code == 0, result.stderr
    assert "You are a clerk of the town hall." in result.stdout and "outcome" in result.stdout
    assert "removed (+0.000)" in result.stderr and "tokens, now" in result.stderr
    assert [listing.versions for listing in stored.list()] == [(1,)], "nothing is stored unless asked for"


def test_compress(foreword: Any, tiny: Path, stored: PromptStore, dev: Path):
    result = run(foreword, "compress", tiny, "--rate", "0.4", "--json")
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    system = found["prompt"]["messages"][0]["content"]
    assert "42." in system and "not" in system and found["tokens"][1] < found["tokens"][0] and found["reference"] is None
    measured = run(foreword, "compress", tiny, "--data", dev, "--max-new-tokens", 2, "--save")
    assert measured.exit_code == 0, measured.stderr
    assert "{{ text }}" in measured.stdout and "compressed" in measured.stdout and "stored as hall@v2" in measured.stderr
    evidence = stored.load("hall").evidence
    assert evidence is not None and evidence["rate"] == 0.5


def test_tokens_are_counted_as_the_model_is_given_them(foreword: Any, tiny: Path, stored: PromptStore):
    from foreword.engines.transformers import load

    engine = load(str(tiny), dtype="float32")
    template = stored.load("hall")
    whole = foreword("prompt", "render", "hall", "text=name 7", "--tokens", "--model", tiny)
    assert whole.exit_code == 0 and f"{len(engine.render(template.render({'text': 'name 7'}))):,} tokens" in whole.stderr
    fixed = json.loads(foreword("prompt", "show", "hall", "--tokens", "--model", tiny, "--json").stdout)
    assert fixed["fixed_tokens"] == len(engine.render_context(template.fixed()))
    assert f"{fixed['fixed_tokens']:,} tokens of it fixed" in foreword("prompt", "show", "hall", "--tokens", "--model", tiny).stderr
    assert "fixed_tokens" not in json.loads(foreword("prompt", "show", "hall", "--json").stdout)


@pytest.mark.parametrize(
    ("command", "options", "message"),
    [
        ("audit", ("--data", "no.jsonl", "--calls", "5"), "no.jsonl"),
        ("compress", ("--rate", "2"), "--rate"),
    ],
)
def test_what_cannot_be_done(foreword: Any, tiny: Path, stored: PromptStore, command: str, options: tuple[str, ...], message: str):
    result = run(foreword, command, tiny, *options)
    assert result.exit_code == 2 and message in result.stderr
