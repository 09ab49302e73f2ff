"""The text tail: numbers, ids, names and quoted strings of a text, kept as a short exact text at the end of a smaller prefix.

These are what keys and values lose first when a text gets fewer positions. Each is kept with the words before it, which say what it
belongs to; where not all fit, those come first of which the smaller prefix lost most.

Axes: L layer, H KV head, N virtual position, D head dimension.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from foreword.engine import Row
from foreword.types import Message

if TYPE_CHECKING:
    from torch import Tensor

    from foreword.compiling.compiler import CompilingEngine

BEFORE_WORDS = 5
MOST_PHRASES = 200
SCORED_TOKENS = 2048
OPENING = "\n\nExact wording: "
_QUOTE = "Quote the text above: {before}"
_EXACT = re.compile(  # the fourth: numbers, dates and amounts, with a unit where one follows
    r"""
    "[^"\n]{2,60}" | “[^”\n]{2,60}”                     # quoted
    | \b[\w.+-]+@[\w-]+(?:\.[\w-]+)+ | \bhttps?://\S+     # addresses
    | \b[A-Z]{2,}[\w-]*\d[\w-]*                           # ids such as AB-4711
    | [$€£]?\d+(?:[.,:/-]\d+)*(?:\s?%|\s(?:(?:second|minute|hour|day|week|month|year|euro|dollar)s?|percent|[kcm]?[mg]|[MG]B)\b)?
    | (?<![.!?]\s)(?<!^)\b[A-Z][a-z]+(?:\s[A-Z][a-z]+)+   # names of several words
    """,
    re.VERBOSE | re.MULTILINE,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Phrase:
    """An exact string and the words before it; `start` is where the string begins in the text."""

    before: str
    exact: str
    start: int

    @property
    def text(self) -> str:
        """Both, as they stand in the text but for blank space."""
        return f"{self.before} {self.exact}".strip()


def phrases(text: str) -> list[Phrase]:
    """Exact strings of a text in order, each once with the words that first stood before it."""
    found: dict[str, Phrase] = {}
    for match in _EXACT.finditer(text):
        exact = " ".join(match.group().split()).rstrip(".,:;-")
        line = re.split(r"[.!?]\s|\n", text[: match.start()])[-1]
        phrase = Phrase(before=" ".join(line.split()[-BEFORE_WORDS:]), exact=exact, start=match.start())
        if exact and phrase.text not in found:
            found[phrase.text] = phrase
    return list(found.values())[:MOST_PHRASES]


def append(
    engine: CompilingEngine, token_ids: Sequence[int], whole: tuple[Tensor, Tensor], small: tuple[Tensor, Tensor], *, room: int
) -> tuple[tuple[Tensor, Tensor], str]:
    """The smaller prefix with a tail of at most `room` positions read behind it, and the tail's text.

    Args:
        token_ids: of the text.
        whole, small: keys and values of the text and of the prefix that is to stand for it, L H N D.
    """
    chosen = _write(engine, engine.tokenizer.decode(token_ids, skip_special_tokens=True), whole, small, room=room)
    if not chosen:
        return small, ""
    tail = engine.read(chosen, behind=small)
    joined = (torch.cat([small[0], tail[0].to(small[0].dtype)], dim=2), torch.cat([small[1], tail[1].to(small[1].dtype)], dim=2))
    return joined, engine.tokenizer.decode(chosen).strip()


def _write(engine: CompilingEngine, text: str, whole: tuple[Tensor, Tensor], small: tuple[Tensor, Tensor], *, room: int) -> tuple[int, ...]:
    """Token ids of the tail; none where the text has no exact strings or none fits."""
    candidates = phrases(text)
    if not candidates or not room:
        return ()
    lost = _lost(engine, candidates, whole, small)
    chosen: list[Phrase] = []
    for _, phrase in sorted(zip(lost, candidates, strict=True), key=lambda pair: -pair[0]):
        if len(_tokens(engine, [*chosen, phrase])) <= room:
            chosen.append(phrase)
    return _tokens(engine, chosen) if chosen else ()


def _tokens(engine: CompilingEngine, chosen: Sequence[Phrase]) -> tuple[int, ...]:
    ordered = sorted(chosen, key=lambda phrase: phrase.start)
    return engine.encode(OPENING + "; ".join(phrase.text for phrase in ordered) + ".\n")


def _lost(engine: CompilingEngine, candidates: Sequence[Phrase], whole: tuple[Tensor, Tensor], small: tuple[Tensor, Tensor]) -> list[float]:
    """How much less probable each exact string is behind the smaller prefix, in nats for each token that the phrase takes."""
    rows = []
    for phrase in candidates:
        asked = engine.render((Message(role="user", content=_QUOTE.format(before=phrase.before)),), prompt_format="continuation")
        rows.append(Row(prompt=asked, targets=(engine.encode(phrase.exact),)))
    sums = []
    for tensors in (whole, small):
        found: dict[int, float] = {}
        for group in engine.batches(rows, most_tokens=SCORED_TOKENS):
            with torch.inference_mode():
                flat = engine.target_log_probs([rows[index] for index in group], *tensors)
            lengths = [len(rows[index].targets[0]) for index in group]
            found |= {index: float(part.sum()) for index, part in zip(group, flat.split(lengths), strict=True)}
        sums.append(found)
    return [(sums[0][index] - sums[1][index]) / len(engine.encode(phrase.text)) for index, phrase in enumerate(candidates)]
