"""`foreword compile` of several parts, of stored prompts and of dictionaries; int8, gates; and what does not go together."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from foreword.prefix.store import PrefixStore

REFUND = "Refunds: a customer gets the money back within 14 days."
OTHER = "Refunds: a customer gets the money back within 30 days."
ENTRIES = """burr: a ring that cuts coffee beans
dose: the weight of ground coffee for one cup
portafilter: the handle that holds the ground coffee
"""
PROMPT = """
[[messages]]
role = "system"
content = "Answer in one sentence."

[[messages]]
role = "user"
content = "{{ question }}"
"""


@pytest.fixture
def write(tmp_path: Path) -> Any:
    def written(name: str, content: str) -> Path:
        path = tmp_path / name
        path.write_text(content, encoding="utf-8")
        return path

    return written


@pytest.fixture
def store(home: Path) -> PrefixStore:
    return PrefixStore(home / "prefixes")


def test_texts_and_stored_prefixes_become_one_and_conflicts_are_told(foreword: Any, tiny: Path, write: Any, store: PrefixStore):
    assert foreword("compile", write("one.txt", "The Eagle is near the river."), "-o", "eagle", "--model", tiny).exit_code == 0
    parts = (write("first.md", REFUND), "eagle", write("second.md", OTHER))
    result = foreword("compile", *parts, "-o", "desk", "--model", tiny)
    assert result.exit_code == 0, result.stderr
    assert "Conflict (first, second)" in result.stderr and "14" in result.stderr and "30" in result.stderr
    header = store.header("desk")
    assert header.kind == "composed" and store.header("eagle").digest in header.parents and len(header.parents) == 3


def test_a_learned_frame_is_put_around_the_parts(foreword: Any, tiny: Path, write: Any, store: PrefixStore):
    texts = [
        write(f"{number}.txt", f"Text {number} is about a shop near the river. It sells {number} kinds of tea.") for number in range(5)
    ]
    assert "learn-frame" in foreword("compile", *texts, "-o", "before", "--model", tiny).stderr
    learned = foreword("prefix", "learn-frame", *texts, "--steps", 2, "--model", tiny, "--json")
    assert learned.exit_code == 0, learned.stderr
    frame = store.load(json.loads(learned.stdout)["reference"])
    sizes = {}
    for name, options in {"framed": (), "plain": ("--plain",)}.items():
        result = foreword("compile", *texts, "-o", name, "--model", tiny, "--json", *options)
        assert result.exit_code == 0, result.stderr
        sizes[name] = json.loads(result.stdout)["positions"]
    few = foreword("compile", *texts[:2], "-o", "few", "--model", tiny)
    assert "learn-frame" not in few.stderr and "header_trailer" not in store.header("few").recipe
    # The first part gives its sink up for the header's.
    assert sizes["framed"] == sizes["plain"] + frame.positions - 1


def test_a_stored_prompt(foreword: Any, tiny: Path, write: Any, store: PrefixStore):
    assert foreword("prompt", "add", write("support.toml", PROMPT)).exit_code == 0
    result = foreword("compile", "--from-prompt", "support", "-o", "start", "--model", tiny)
    assert result.exit_code == 0, result.stderr
    stands_for = store.header("start").stands_for
    assert stands_for is not None and stands_for.prompt == "support@v1"


def test_int8_takes_less_room(foreword: Any, tiny: Path, write: Any, store: PrefixStore):
    source = write("one.txt", REFUND)
    for name, options in {"wide": (), "small": ("--int8",)}.items():
        assert foreword("compile", source, "-o", name, "--model", tiny, *options).exit_code == 0
    assert store.header("small").dtype == "int8"
    assert foreword("prefix", "quantize", "wide", "-o", "rounded").exit_code == 0
    assert store.header("rounded").digest == store.header("small").digest


def test_entries_of_a_dictionary_are_chosen_for_a_prompt(foreword: Any, tiny: Path, write: Any, store: PrefixStore):
    options = ("--method", "dictionary", "--separate", "--model", tiny)
    assert foreword("compile", write("terms.txt", ENTRIES), "-o", "terms", *options).exit_code == 0
    asked = ("generate", "What is a burr?", "--prefix", "terms", "--model", tiny, "--max-new-tokens", 2, "--json")
    some, every = (json.loads(foreword(*asked, *words).stdout)["usage"]["prefix_positions"] for words in (("--entries", 1), ()))
    assert 0 < some < every == store.header("terms").positions
    assert "names, for one PROMPT" in foreword("generate", "x", "--entries", 1, "--model", tiny).stderr


def test_a_gate_of_own_queries(foreword: Any, tiny: Path, write: Any, store: PrefixStore):
    pytest.importorskip("wordllama")
    queries = write("queries.txt", "".join(f"When is order {number} refunded?\n" for number in range(25)))
    source = write("one.txt", REFUND)
    result = foreword("compile", source, "-o", "gated", "--gate", 0.1, "--gate-queries", queries, "--int8", "--model", tiny)
    assert result.exit_code == 0, result.stderr
    header = store.header("gated")
    assert header.relevance is not None and header.dtype == "int8"


def test_what_does_not_go_together(foreword: Any, write: Any):
    source, other = write("one.txt", REFUND), write("two.txt", OTHER)
    for words, said in (
        ((), "Name what is to be compiled"),
        ((source, "--from-prompt", "support"), "leave"),
        ((source, other, "--report"), "measures one text"),
        ((source, other, "--gate", 0.05), "is for one text"),
        ((source, "--gate-queries", other), "--gate 0.05"),
        (("--from-prompt", "support", "--chat"), "leave `--method` and `--chat` out"),
        (("--from-prompt", "nope"), "nope"),
        ((source, "--separate"), "no use for `separate`, which is for dictionary"),
    ):
        result = foreword("compile", *words, "-o", "x")
        assert result.exit_code == 2 and said in " ".join(result.stderr.split()), (words, result.stderr)
