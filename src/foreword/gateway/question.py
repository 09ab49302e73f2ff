"""What a request asks: its last user turn, and the vector of that turn, which stages share."""

from __future__ import annotations

from typing import TYPE_CHECKING

from foreword.gateway.passage import Passage
from foreword.gateway.path_wire import PathRequest

if TYPE_CHECKING:
    import numpy as np

    from foreword.retrieval.embedder import Embedder

MOST_CHARACTERS = 2_000
"""Of a text that its vector is made of: its start and its end, half each."""


def question(request: PathRequest) -> str:
    """The words of the last user turn; empty where there is none."""
    return next((message.text for message in reversed(request.messages) if message.role == "user"), "")


def excerpt(text: str) -> str:
    """What of a long text is embedded."""
    half = MOST_CHARACTERS // 2
    return text if len(text) <= MOST_CHARACTERS else f"{text[:half]} {text[-half:]}"


def question_vector(passage: Passage, embedder: Embedder) -> np.ndarray:
    """The vector D of the last user turn; computed once for as long as the turn stays the same. Of length 0 where it says nothing."""
    text = question(passage.request)
    kept = passage.question_vector
    # A guard may have put other words in the turn's place since.
    if kept is None or kept[0] != text:
        kept = passage.question_vector = (text, embedder.embed([excerpt(text)])[0])
    return kept[1]
