"""A language model that counts: word pairs of a small text, so that what surprises it can be worked out by hand. Meets `Scores`."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

from foreword.engine import Conversation, Row

END = "<end>"


class CountingEngine:
    """A token is a word with its case; the probability of a word is its share of those that followed the word before, one added to each."""

    name, window = "counting", 1 << 16

    def __init__(self, text: str, *, window: int = 1 << 16) -> None:
        self._ids: dict[str, int] = {}
        self.window = window
        words = text.split()
        self._pairs = Counter(itertools.pairwise(words))
        self._firsts = Counter(words[:-1])
        self._vocabulary = len(set(words)) + 1000
        self.fed: list[int] = []

    def encode(self, text: str) -> tuple[int, ...]:
        return tuple(self._ids.setdefault(word, len(self._ids)) for word in text.split()) or (self._ids.setdefault("", len(self._ids)),)

    def render(self, conversation: Conversation, *, prompt_format: Any = "full") -> tuple[int, ...]:
        return self.encode(" ".join(f"<{message.role}> {message.content}" for message in conversation) + " <assistant>")

    def answer_ids(self, text: str) -> tuple[int, ...]:
        return self.encode(f"{text} {END}")

    def log_probs(self, rows: Sequence[Row], *, after: Sequence[int] = (), progress: Any = None) -> list[tuple[tuple[float, ...], ...]]:
        words = {number: word for word, number in self._ids.items()}
        found = []
        self.fed.append(len(after) + sum(row.fed_tokens for row in rows))
        for row in rows:
            assert row.prompt, "something must predict the first token"
            targets = []
            for target in row.targets:
                before = [row.prompt[-1], *target[:-1]]
                targets.append(tuple(self._log_prob(words[one], words[other]) for one, other in zip(before, target, strict=True)))
            found.append(tuple(targets))
            if progress is not None:
                progress(1)
        return found

    def _log_prob(self, before: str, word: str) -> float:
        return math.log((self._pairs[before, word] + 1) / (self._firsts[before] + self._vocabulary))
