"""`foreword prompt optimise`: a search on a tiny random model; what is told, stored and gone on with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from foreword.prefix.store import PrefixStore
from foreword.prompting.store import PromptStore

PROMPT = """
[[messages]]
role = "system"
content = "You are a clerk. Please say whether the text is about red or blue things. Be brief."
[[messages]]
role = "user"
content = "{{ text }}"
"""


@pytest.fixture
def stored(foreword: Any, tmp_path: Path, home: Path) -> PromptStore:
    (tmp_path / "colour.toml").write_text(PROMPT)
    assert foreword("prompt", "add", tmp_path / "colour.toml").exit_code == 0
    return PromptStore(home / "prompts")


@pytest.fixture
def labelled(rows: Any) -> Path:
    things = ("rose", "fire", "brick", "tomato"), ("sky", "sea", "jeans", "ink")
    return rows("colours.jsonl", [{"text": f"{things[n % 2][n // 2 % 4]} {n}", "label": ("red", "blue")[n % 2]} for n in range(60)])


def optimised(foreword: Any, tiny: Path, data: Path, *options: object) -> Any:
    return foreword("prompt", "optimise", "colour", "--data", data, "--model", tiny, "--dtype", "float32", *options)


def test_a_new_version_with_its_evidence(foreword: Any, tiny: Path, labelled: Path, stored: PromptStore):
    result = optimised(foreword, tiny, labelled, "--calls", 400, "--json")
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    assert found["spent"]["calls"] <= 400 + 32 and found["dev"]["difference"] >= 0
    assert "tried on the dev rows" in result.stderr
    assert found["reference"] == ("colour@v2" if found["changed"] else "colour@v1")
    evidence = stored.load(found["reference"]).evidence
    assert (evidence is not None) == found["changed"]
    if evidence is not None:
        assert evidence["spent"]["calls"] == found["spent"]["calls"]
        assert "made by foreword prompt optimise" in foreword("prompt", "show", found["reference"]).stderr


def test_the_same_command_goes_on_and_fresh_starts_over(foreword: Any, tiny: Path, labelled: Path, stored: PromptStore, home: Path):
    def run(*options: object) -> dict[str, Any]:
        words = ("--data", labelled, "--model", tiny, "--dtype", "float32", "--calls", 250, "--json")
        result = foreword("prompt", "optimise", "colour@v1", *words, *options)
        assert result.exit_code == 0, result.stderr
        return json.loads(result.stdout)

    def entries() -> list[int]:
        return [len(path.read_text().splitlines()) for path in sorted((home / "runs" / "optimise-colour" / "journals").iterdir())]

    first = run()
    before = entries()
    assert run()["dev"] == first["dev"] and entries() == before, "nothing was asked again"
    run("--seed", 4)
    assert len(entries()) == 2, "other work has a journal of its own"
    run("--seed", 4, "--fresh")
    assert len(entries()) == 1


def test_money_and_a_table(foreword: Any, tiny: Path, labelled: Path, stored: PromptStore):
    prices = ("--price-per-million-input", 1, "--currency", "EUR", "--failure-cost", "0.01")
    result = optimised(foreword, tiny, labelled, "--budget-money", "0.02", *prices, "--name", "colour-2")
    assert result.exit_code == 0, result.stderr
    assert "cost per success" in result.stdout and "EUR" in result.stdout and "Spent 0.0" in result.stderr


def test_then_compile(foreword: Any, tiny: Path, labelled: Path, stored: PromptStore, home: Path):
    # A budget that buys no other prompt: what is compiled is known.
    result = optimised(foreword, tiny, labelled, "--calls", 33, "--then-compile", "colour", "--json")
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    assert found["prefix"] == "colour@v1" and found["reference"] == "colour@v1" and not found["changed"]
    header = PrefixStore(home / "prefixes").load("colour").header
    assert header.stands_for is not None and header.stands_for.prompt == "colour@v1"


def test_what_cannot_be_compiled_is_said_after_what_was_found(foreword: Any, tiny: Path, labelled: Path, tmp_path: Path, home: Path):
    (tmp_path / "bare.toml").write_text('[[messages]]\nrole = "user"\ncontent = "{{ text }}"\n')
    words = ("--data", labelled, "--model", tiny, "--calls", 33, "--then-compile", "bare", "--json")
    result = foreword("prompt", "optimise", tmp_path / "bare.toml", *words)
    assert result.exit_code == 1 and json.loads(result.stdout)["prefix"] is None
    assert "cannot be compiled: Nothing of prompt `bare` is fixed" in result.stderr


def test_answers_that_are_written(foreword: Any, tiny: Path, train: Path, dev: Path, stored: PromptStore):
    options = ("--dev", dev, "--calls", 40, "--max-new-tokens", 3, "--match", "contains", "--json")
    result = optimised(foreword, tiny, train, *options)
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["held_out"]["before"]["rows"] == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "Say what may be spent"),
        (("--budget-money", "1"), "needs a price"),
        (("--calls", "5"), "before the given prompt itself was judged"),
        (("--calls", "500", "--strategies", "no-such"), "No `no-such` among strategies"),
        (("--calls", "500", "--match", "vibes"), "no rule `vibes`"),
        (("--calls", "500", "--then-compile", "A B"), "cannot name a prefix"),
    ],
)
def test_what_cannot_be_done(foreword: Any, tiny: Path, labelled: Path, stored: PromptStore, options: tuple[str, ...], message: str):
    result = optimised(foreword, tiny, labelled, *options)
    assert result.exit_code == 2 and message in result.stderr
    assert [listing.versions for listing in stored.list()] == [(1,)]
