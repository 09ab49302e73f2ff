"""A small embedder that needs no files: a text is the mean of its words' vectors, and a word's vector is drawn from its own hash.

Axes: N text, D dimension.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np

from foreword.prefix.relevance import words

DIMENSIONS = 48


class WordVectors:
    """Meets `foreword.retrieval.embedder.Embedder`."""

    def __init__(self, name: str = "words/48", dimensions: int = DIMENSIONS) -> None:
        self.name, self.dimensions = name, dimensions

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """Vectors N D."""
        vectors_ND = np.zeros((len(texts), self.dimensions), dtype=np.float32)
        for vector_D, text in zip(vectors_ND, texts, strict=True):
            for word in words(text):
                vector_D += np.random.default_rng(zlib.crc32(word.encode())).standard_normal(self.dimensions).astype(np.float32)
            length = float(np.linalg.norm(vector_D))
            if length:
                vector_D /= length
        return vectors_ND
