"""WordLlama: static token vectors, distilled from a language model's own, averaged over a text (MIT licence, 16 MB, about 100 µs a text).

The package's files are read where they lie, and the package itself is not imported: doing so would set up the program's logging and load
an HTTP client and compiled algorithms that are not needed here.

Axes: N text, T token, V vocabulary, D dimension.
"""

from __future__ import annotations

import importlib.util
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from foreword.errors import ModelError

NAME = "wordllama/l2-supercat-256"
WEIGHTS, TOKENIZER = "weights/l2_supercat_256.safetensors", "tokenizers/l2_supercat_tokenizer_config.json"
_TENSOR = "embedding.weight"
_SPECIAL = re.compile(r"<s>|</s>|<unk>|\u2581|  |\A | \Z")
"""What makes a text's tokens others than those of its words: the tokenizer's own marks, and more than one blank in a row."""
MOST_WORDS, MOST_WORD = 50_000, 64
_HOW = "pip install 'foreword[retrieval]'."


def load() -> WordLlama:
    """Reads the vectors and the tokenizer.

    Raises:
        ModelError: the package `wordllama` is not installed, or its files are not what they should be.
    """
    weights, tokenizer = (_file(name) for name in (WEIGHTS, TOKENIZER))
    from safetensors import SafetensorError, safe_open
    from tokenizers import Tokenizer

    try:
        with safe_open(weights, framework="np") as file:
            return WordLlama(file.get_tensor(_TENSOR), Tokenizer.from_file(str(tokenizer)))
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelError(f"The embedder `wordllama` cannot be read: {error}. Install it anew: {_HOW}") from error


def _file(name: str) -> Path:
    spec = importlib.util.find_spec("wordllama")
    if spec is None or spec.origin is None:
        raise ModelError(f"The embedder `wordllama` comes inside the package `wordllama`, which is not installed. Run {_HOW}")
    path = Path(spec.origin).parent / name
    if not path.is_file():
        raise ModelError(f"The installed package `wordllama` has no file {name}. Version 0.4 has one: {_HOW}")
    return path


class WordLlama:
    """The embedder. Meets `Embedder`."""

    def __init__(self, vectors_VD: np.ndarray, tokenizer: Any) -> None:
        self._vectors_VD = vectors_VD
        self._tokenizer = tokenizer
        self._words: dict[str, list[int]] = {}

    @property
    def name(self) -> str:
        """Which vectors these are."""
        return NAME

    @property
    def dimensions(self) -> int:
        """Numbers in a vector."""
        return self._vectors_VD.shape[1]

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """Vectors of the texts, N D: the mean of their tokens' vectors, brought to length 1."""
        sums_ND = np.zeros((len(texts), self.dimensions), dtype=np.float32)
        for row_D, text in zip(sums_ND, texts, strict=True):
            # One by one: the tokenizer's batches start threads of their own, which gain nothing on short texts.
            token_ids = self._token_ids(_sayable(text))
            if token_ids:
                self._vectors_VD.take(token_ids, axis=0).sum(axis=0, dtype=np.float32, out=row_D)
                row_D /= math.sqrt(row_D @ row_D) or 1.0
        return sums_ND

    def _token_ids(self, text: str) -> list[int]:
        """The tokenizer's, put together from those of words: no token reaches from one word into the next.

        Words come again and again, and the tokenizer takes ten times as long as all the rest.
        """
        if not text or _SPECIAL.search(text):
            return self._tokenizer.encode(text, add_special_tokens=False).ids
        words, token_ids = self._words, []
        for word in text.split(" "):
            known = words.get(word)
            if known is None:
                if len(words) >= MOST_WORDS:
                    words.clear()
                known = self._tokenizer.encode(word, add_special_tokens=False).ids
                if len(word) <= MOST_WORD:
                    words[word] = known
            token_ids += known
        return token_ids


def _sayable(text: str) -> str:
    """Without halves of characters, which JSON can carry and the tokenizer cannot read; blank where there is nothing but blanks."""
    return text.encode("utf-8", "replace").decode() if text.strip() else ""
