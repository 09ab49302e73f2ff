"""Passages of a folder, ranked by likeness."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from foreword.errors import ConfigError
from foreword.gateway.assembling.passages import Chunk, Chunks, header, read_folder, written
from foreword.gateway.path_settings import PassageSettings
from word_vectors import WordVectors


def shop(folder: Path) -> Path:
    (folder / "more").mkdir()
    (folder / "returns.md").write_text("Returns are free within thirty days.\n\nA parcel must be unopened.")
    (folder / "more" / "hours.txt").write_text("The shop opens at nine.")
    (folder / "prices.csv").write_text("returns,1")
    return folder


def best(chunks: Chunks, query: str, *, at_most: int = 3, at_least: float = 0.1) -> list[str]:
    return [chunk.source for chunk in asyncio.run(chunks.best(WordVectors().embed([query])[0], at_most=at_most, at_least=at_least))]


def test_texts_of_a_folder_and_its_folders_are_read_in_parts(tmp_path: Path) -> None:
    assert [chunk.source for chunk in read_folder(shop(tmp_path), 16)] == ["more/hours.txt#1", "returns.md#1"]
    (tmp_path / "returns.md").write_text("Returns are free within thirty days and a bit.\n\nA parcel must be unopened.")
    assert [chunk.source for chunk in read_folder(tmp_path, 16)] == ["more/hours.txt#1", "returns.md#1", "returns.md#2"]


def test_long_texts_are_cut(tmp_path: Path) -> None:
    (tmp_path / "long.txt").write_text(" ".join(f"Sentence number {number} stands here." for number in range(100)))
    chunks = read_folder(tmp_path, 32)
    assert len(chunks) > 10 and all(len(chunk.text) <= 128 for chunk in chunks)
    assert "".join(chunk.text for chunk in chunks).count("Sentence") == 100


def test_the_likest_come_first_and_what_is_unlike_stays_out(tmp_path: Path) -> None:
    chunks = Chunks.of(PassageSettings(folder=shop(tmp_path)), WordVectors())
    assert best(chunks, "are returns free within thirty days")[0] == "returns.md#1"
    assert best(chunks, "when opens the shop", at_most=1) == ["more/hours.txt#1"]
    assert best(chunks, "quantum chromodynamics", at_least=0.5) == []
    assert best(chunks, "") == []


def test_a_large_folder_is_searched_in_a_thread_with_the_same_result() -> None:
    few = [Chunk(source=f"f#{number}", text=f"word{number} and more") for number in range(50)]
    many = [*few, *(Chunk(source=f"g#{number}", text="nothing alike") for number in range(5_000))]
    query = "word7 and more"
    assert best(Chunks(many, WordVectors()), query, at_most=2) == best(Chunks(few, WordVectors()), query, at_most=2)


@pytest.mark.parametrize("kind", ["missing", "empty", "binary"])
def test_a_folder_that_cannot_be_used_is_named(tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "texts"
    if kind != "missing":
        folder.mkdir()
    if kind == "binary":
        (folder / "a.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="texts"):
        read_folder(folder, 100)


def test_passages_are_numbered_for_the_model_and_named_for_the_client() -> None:
    chunks = [Chunk(source="a,ü.md#1", text="One."), Chunk(source="b.md#2", text="Two.")]
    assert written(chunks).endswith("\n[1] One.\n[2] Two.")
    assert header(chunks) == "a??.md#1, b.md#2"
