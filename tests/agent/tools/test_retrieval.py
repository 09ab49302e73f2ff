"""Passages that fit a query."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from foreword.agent.tools import retrieval
from foreword.agent.tools.retrieval import Index, Passage, parted
from foreword.errors import ConfigError, RegistryError
from foreword.prompting.tool import Observation, Tools

TEXTS = (
    "The shop opens at nine and closes at six. On Sundays it is closed.",
    "Coffee is ground freshly. The grinder is cleaned every evening.",
    "Parcels are sent with the post. They take two days.",
)


class Letters:
    """An embedder whose vectors count letters."""

    name = "letters/1"
    dimensions = 26

    def __init__(self) -> None:
        self.calls: list[int] = []

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        self.calls.append(len(texts))
        counts = np.array([[text.lower().count(chr(97 + place)) for place in range(26)] for text in texts], dtype=np.float32)
        return counts / np.maximum(np.linalg.norm(counts, axis=1, keepdims=True), 1e-9)


def called(arguments: dict[str, Any], **settings: Any) -> Observation:
    return asyncio.run(Tools.of([retrieval.make(**{"texts": TEXTS, **settings})]).call("retrieval", arguments))


def test_the_passage_with_the_words_comes_first() -> None:
    found = called({"query": "When does the shop close on Sundays?"}, passages=1)
    assert found.text == f"[1] (text 1) {TEXTS[0]}"


def test_passages_come_best_first_and_say_where_they_are_from(tmp_path: Path) -> None:
    file = tmp_path / "grinder.txt"
    file.write_text("The grinder of the coffee machine is loud.", encoding="utf-8")
    found = called({"query": "the grinder is loud"}, files=str(file), passages=2)
    assert found.text.startswith("[1] (grinder.txt) The grinder of the coffee machine")
    assert "\n\n[2] (text 2)" in found.text


def test_what_fits_nothing_is_told() -> None:
    assert called({"query": "xylophone"}).text == "Nothing fits."


@pytest.mark.parametrize("arguments", [{}, {"query": " "}, {"query": 3}, {"query": "tea", "k": 2}])
def test_other_arguments_are_refused(arguments: dict[str, Any]) -> None:
    found = called(arguments)
    assert not found.ok
    assert '{"query"' in found.text


def test_an_embedder_decides_where_there_is_one() -> None:
    embedder = Letters()
    tools = Tools.of([retrieval.make(texts=["zzz zzz", "aaa"], embedder=embedder, passages=1)])

    async def run() -> list[Observation]:
        return [await tools.call("retrieval", {"query": query}) for query in ("zz", "a", "z")]

    assert [found.text for found in asyncio.run(run())] == ["[1] (text 1) zzz zzz", "[1] (text 2) aaa", "[1] (text 1) zzz zzz"]
    assert sorted(embedder.calls) == [1, 1, 1, 2]  # the passages are embedded once


def test_a_query_that_says_nothing_to_the_embedder_is_searched_by_words() -> None:
    found = called({"query": "1984"}, texts=["the year 1984", "tea"], embedder=Letters())
    assert found.text == "[1] (text 1) the year 1984"


def test_rare_words_count_for_more() -> None:
    passages = [Passage(source=str(number), text=text) for number, text in enumerate(["the the the", "the okapi", "the", "the"])]
    assert [found.source for found in Index(passages).search("the okapi", 2)] == ["1", "0"]


def test_texts_are_parted_at_paragraphs_then_sentences() -> None:
    assert parted("one\n\ntwo\n\n\n", 100) == ["one\ntwo"]
    parts = parted("A first sentence. A second sentence. " * 20, 60)
    assert max(map(len, parts)) <= 60
    assert all(part.endswith("sentence.") for part in parts)
    assert " ".join(parts) == ("A first sentence. A second sentence. " * 20).strip()


def test_text_without_spaces_is_parted_all_the_same() -> None:
    parts = parted("x" * 1_000, 100)
    assert (len(parts), set(map(len, parts))) == (10, {100})


def test_nothing_to_search_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nothing to search"):
        retrieval.make(texts=["", "  \n "])
    with pytest.raises(ConfigError, match="cannot be searched"):
        retrieval.make(files=[str(tmp_path / "none.txt")])
    binary = tmp_path / "image.png"
    binary.write_bytes(b"\x89PNG\xff\xfe")
    with pytest.raises(ConfigError, match="UTF-8"):
        retrieval.make(files=str(binary))
    with pytest.raises(ConfigError, match="`passages` must be"):
        retrieval.make(texts=["tea"], passages=0)
    with pytest.raises(RegistryError):
        retrieval.make(texts=["tea"], embedder="nothing")
