"""`retrieval`: the passages of given texts that fit a query best.

With an embedder the passages are those whose vectors are nearest; without one, and for a query that says nothing to it, those of the best
BM25 (Robertson and Zaragoza 2009, section 3; k1 = 1.2, b = 0.75), which only knows the words themselves.

Axes: N passage, D dimension.
"""

from __future__ import annotations

import math
import re
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foreword.agent.detached import Detached
from foreword.errors import ConfigError, ToolError
from foreword.prompting.tool import MOST_CHARACTERS, SECONDS, Tool
from foreword.retrieval import embedder as embedders

if TYPE_CHECKING:
    import numpy as np

    from foreword.retrieval.embedder import Embedder

_K1, _B = 1.2, 0.75
_WORD = re.compile(r"\w+")
_MOST_QUERY = 2_000


def make(
    *,
    texts: Sequence[str] = (),
    files: Sequence[str] | str = (),
    embedder: str | Any = None,
    passages: int = 3,
    passage_characters: int = 800,
    name: str = "retrieval",
    description: str = "Finds the passages that fit a query best, in the texts at hand.",
    seconds: float = SECONDS,
) -> Tool:
    """The tool.

    Args:
        texts: what is searched, as it is.
        files: text files (UTF-8) that are searched too; read once, now.
        embedder: its name, or one that is loaded; none searches by words.
        passages: given for a query.
        passage_characters: of a passage at most; texts are parted at empty lines, then at sentences' ends.

    Raises:
        ConfigError: there is nothing to search, or a file cannot be read.
        RegistryError, ModelError: there is no such embedder, or it is not installed.
    """
    if passages < 1 or passage_characters < 20:
        raise ConfigError(f"`passages` must be 1 or more and `passage_characters` 20 or more; got {passages} and {passage_characters}.")
    sources = [(f"text {number}", text) for number, text in enumerate(texts, start=1)]
    sources += [(Path(file).name, _read(Path(file))) for file in ([files] if isinstance(files, str) else files)]
    parts = [Passage(source=source, text=part) for source, text in sources for part in parted(text, passage_characters)]
    if not parts:
        raise ConfigError("`retrieval` has nothing to search. Give `texts` or `files` that are not empty.")
    index = Index(parts, embedders.get(embedder) if isinstance(embedder, str) else embedder)
    threads = Detached(name)

    async def call(arguments: Mapping[str, Any]) -> str:
        query = arguments.get("query")
        if not isinstance(query, str) or not query.strip() or set(arguments) != {"query"}:
            raise ToolError(f'`{name}` takes one argument, a text: {{"query": "opening hours"}}.')
        found = await threads.call(index.search, query[:_MOST_QUERY], passages)
        return (
            "\n\n".join(f"[{place}] ({passage.source}) {passage.text}" for place, passage in enumerate(found, start=1)) or "Nothing fits."
        )

    return Tool(
        name=name,
        description=description,
        parameters={
            "type": "object",
            "properties": {"query": {"type": "string", "description": "What to look for, in a few words"}},
            "required": ["query"],
            "additionalProperties": False,
        },
        call=call,
        seconds=seconds,
        most_characters=max(MOST_CHARACTERS, passages * (passage_characters + 200)),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Passage:
    """A part of a text, and which text it is of."""

    source: str
    text: str


class Index:
    """Passages that can be searched, from several threads at once."""

    def __init__(self, passages: Sequence[Passage], embedder: Embedder | None = None) -> None:
        self._passages, self._embedder = tuple(passages), embedder
        self._lock = threading.Lock()

    def search(self, query: str, count: int) -> list[Passage]:
        """The `count` passages that fit best, best first; fewer where fewer fit at all."""
        scores = self._likeness(query)
        if scores is None:
            scores = self._bm25(query)
        order = sorted(range(len(scores)), key=lambda place: (-scores[place], place))
        return [self._passages[place] for place in order[:count] if scores[place] > 0]

    def _likeness(self, query: str) -> list[float] | None:
        """Cosines; None where there is no embedder or the query says nothing to it."""
        if self._embedder is None:
            return None
        vector_D = self._embedder.embed([query])[0]
        if not vector_D.any():
            return None
        with self._lock:  # the first search makes the vectors, and others wait for them
            vectors_ND = self._vectors_ND
        return (vectors_ND @ vector_D).tolist()

    @cached_property
    def _vectors_ND(self) -> np.ndarray:
        if self._embedder is None:
            raise ConfigError("Vectors need an embedder; this index has none.")
        return self._embedder.embed([passage.text for passage in self._passages])

    def _bm25(self, query: str) -> list[float]:
        with self._lock:
            counts, documents = self._words
        mean = sum(map(Counter.total, counts)) / len(counts) or 1.0
        scores = []
        for words in counts:
            length = _K1 * (1 - _B + _B * words.total() / mean)
            scores.append(
                sum(
                    math.log(1 + (len(counts) - documents[word] + 0.5) / (documents[word] + 0.5))
                    * words[word]
                    * (_K1 + 1)
                    / (words[word] + length)
                    for word in set(_words(query))
                    if word in words
                )
            )
        return scores

    @cached_property
    def _words(self) -> tuple[list[Counter[str]], Counter[str]]:
        """How often each passage has each word, and in how many passages it is."""
        counts = [Counter(_words(passage.text)) for passage in self._passages]
        return counts, Counter(word for words in counts for word in words)


def parted(text: str, most: int) -> list[str]:
    """The parts of a text, each of at most `most` characters: paragraphs, joined where they are short, cut at sentences where long."""
    parts: list[str] = []
    for paragraph in re.split(r"\n\s*\n", text):
        for piece in _cut(" ".join(paragraph.split()), most):
            if parts and len(parts[-1]) + 1 + len(piece) <= most:
                parts[-1] = f"{parts[-1]}\n{piece}"
            else:
                parts.append(piece)
    return parts


def _cut(paragraph: str, most: int) -> list[str]:
    pieces = []
    while len(paragraph) > most:
        end = max(paragraph.rfind(mark, most // 2, most) for mark in (". ", "! ", "? ", "; ")) + 1
        end = end or max(paragraph.rfind(" ", most // 2, most), 0) or most
        pieces.append(paragraph[:end].strip())
        paragraph = paragraph[end:].strip()
    return [*pieces, paragraph] if paragraph else pieces


def _words(text: str) -> list[str]:
    return _WORD.findall(text.casefold())


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be searched: {error}. Give a text file in UTF-8.") from None
