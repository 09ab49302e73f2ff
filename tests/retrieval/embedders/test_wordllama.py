"""The embedded embedder."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from types import ModuleType

import numpy as np
import pytest

from foreword.errors import ModelError
from foreword.retrieval.embedders import wordllama

installed = pytest.mark.skipif(find_spec("wordllama") is None, reason="the extra `retrieval` is not installed")


@pytest.fixture(scope="module")
def embedder() -> wordllama.WordLlama:
    return wordllama.load()


@installed
def test_vectors_have_length_one_and_the_promised_shape(embedder: wordllama.WordLlama):
    vectors_ND = embedder.embed(["How do I renew my passport?", "Ein Satz.", "数学"])
    assert vectors_ND.shape == (3, embedder.dimensions) and vectors_ND.dtype == np.float32
    assert np.allclose(np.linalg.norm(vectors_ND, axis=1), 1, atol=1e-5)


@installed
def test_what_is_alike_is_near(embedder: wordllama.WordLlama):
    cat, kitten, loan = embedder.embed(["The cat sleeps on the sofa.", "A kitten naps on a couch.", "The bank raised interest rates."])
    assert cat @ kitten > 0.3 > cat @ loan


@installed
def test_a_vector_does_not_depend_on_its_neighbours(embedder: wordllama.WordLlama):
    texts = ["one", "a far longer text than the first one, with many words in it", "two words"]
    together = embedder.embed(texts)
    assert all(np.array_equal(row_D, embedder.embed([text])[0]) for row_D, text in zip(together, texts, strict=True))


@installed
def test_what_says_nothing_has_no_direction(embedder: wordllama.WordLlama):
    assert not embedder.embed(["", "  \n"]).any()
    assert embedder.embed([]).shape == (0, embedder.dimensions)


@installed
def test_half_a_character_does_no_harm(embedder: wordllama.WordLlama):
    assert np.isfinite(embedder.embed(["half \ud83d of it"])).all()


def test_not_installed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "wordllama", None)
    with pytest.raises(ModelError, match=r"`wordllama`, which is not installed. Run pip install 'foreword\[retrieval\]'"):
        wordllama.load()


def test_a_package_without_the_files(monkeypatch: pytest.MonkeyPatch, tmp_path):
    other = ModuleType("wordllama")
    other.__spec__ = type(sys.__spec__)("wordllama", None, origin=str(tmp_path / "__init__.py"))  # type: ignore[misc]
    monkeypatch.setitem(sys.modules, "wordllama", other)
    with pytest.raises(ModelError, match=r"has no file weights/l2_supercat_256\.safetensors"):
        wordllama.load()
    for name in (wordllama.WEIGHTS, wordllama.TOKENIZER):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(b"not what it should be")
    with pytest.raises(ModelError, match="cannot be read"):
        wordllama.load()
