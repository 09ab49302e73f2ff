"""Reference queries: what a model asks of a text when the text is used. A compacted prefix is fitted to answer these.

Two kinds, after Zweiger et al. 2026: the model reads the text again, part by part, behind the text itself (Kim et al., KVzip, 2025,
section 3); and it asks itself questions about passages and answers them, which gives queries of the kind that users will bring.

Axes: L layer, H KV head, M query, D head dimension.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from foreword.engine import Asked, Row
from foreword.types import Message, Sampling

if TYPE_CHECKING:
    from foreword.compiling.compiler import CompilingEngine
    from foreword.compiling.observer import Observer
    from foreword.prefix.artifact import Prefix

CHUNK = 256
"""Tokens of the text that are read again at a time."""
SNIPPET, QUESTION_TOKENS, ANSWER_TOKENS = 32, 32, 48
_AGAIN = "Repeat the text above, word for word."
_ASK = "The text above says: “{snippet}” Ask one short question that this passage answers."


@dataclass(frozen=True, slots=True, kw_only=True)
class References:
    """Reference queries of a text.

    Attributes:
        reading: from reading the text again.
        asking: from questions and answers; None where none were asked.
        reading_rows, asking_rows: the tokens themselves, as they stand behind the text: a request, and what the model said to it.
    """

    reading: Asked
    asking: Asked | None
    reading_rows: tuple[Row, ...]
    asking_rows: tuple[Row, ...]

    @property
    def all(self) -> Asked:
        """Both kinds together."""
        return self.reading if self.asking is None else _joined([self.reading, self.asking])


def room_for_references(engine: CompilingEngine) -> int:
    """Positions of the window that must stay free behind the text for its reference queries."""
    prompt = max(len(_render(engine, _AGAIN)), len(_render(engine, _ASK)) + SNIPPET)
    return min(prompt + max(CHUNK, QUESTION_TOKENS + ANSWER_TOKENS), engine.window // 2)


def collect(
    engine: CompilingEngine,
    token_ids: Sequence[int],
    prefix: Prefix,
    *,
    kept: int,
    questions: int,
    seed: int,
    observer: Observer,
) -> References:
    """The reference queries of a text.

    Args:
        token_ids: of the text.
        prefix: the text's exact keys and values.
        kept: from how many of its tokens to keep the queries when they are read again.
        questions: how many questions to ask.
    """
    reading_rows = _reading_rows(engine, token_ids)
    tensors = (prefix.key_LHND, prefix.value_LHND)
    observer.stage("reading the text again", len(reading_rows))
    reading = _read_again(engine, reading_rows, tensors, kept=kept, seed=seed, observer=observer)
    if not questions:
        return References(reading=reading, asking=None, reading_rows=reading_rows, asking_rows=())
    observer.stage("asking itself questions", 3 * questions)
    asked_rows = asking_rows(engine, token_ids, prefix, questions=questions, seed=seed, observer=observer)
    asking = _joined([_asked(engine, row, tensors, observer) for row in asked_rows])
    return References(reading=reading, asking=asking, reading_rows=reading_rows, asking_rows=asked_rows)


def heard_behind(
    engine: CompilingEngine, found: References, key_LHND: Tensor, value_LHND: Tensor, *, kept: int, seed: int, observer: Observer
) -> Asked:
    """What the same tokens ask behind other keys and values: those of a smaller prefix, say, where queries of deeper layers differ."""
    observer.stage("listening behind the smaller prefix", len(found.reading_rows) + len(found.asking_rows))
    tensors = (key_LHND, value_LHND)
    reading = _read_again(engine, found.reading_rows, tensors, kept=kept, seed=seed, observer=observer)
    return _joined([reading, *(_asked(engine, row, tensors, observer) for row in found.asking_rows)])


def _asked(engine: CompilingEngine, row: Row, tensors: tuple[Tensor, Tensor], observer: Observer) -> Asked:
    whole = (*row.prompt, *row.targets[0])
    found = engine.asked(whole, *tensors, kept=range(len(whole)))
    observer.advance(1)
    return found


def _reading_rows(engine: CompilingEngine, token_ids: Sequence[int]) -> tuple[Row, ...]:
    prompt = _render(engine, _AGAIN)
    size = max(1, min(CHUNK, engine.window - len(token_ids) - len(prompt)))
    return tuple(Row(prompt=prompt, targets=(tuple(token_ids[start : start + size]),)) for start in range(0, len(token_ids), size))


def _read_again(
    engine: CompilingEngine, rows: Sequence[Row], tensors: tuple[Tensor, Tensor], *, kept: int, seed: int, observer: Observer
) -> Asked:
    draw = random.Random(seed)
    tokens = sum(len(row.targets[0]) for row in rows)
    parts = []
    for row in rows:
        start, size = len(row.prompt), len(row.targets[0])
        count = min(size, -(-kept * size // tokens))
        places = sorted(draw.sample(range(start, start + size), count))
        parts.append(engine.asked((*row.prompt, *row.targets[0]), *tensors, kept=places))
        observer.advance(1)
    return _joined(parts)


def asking_rows(
    engine: CompilingEngine, token_ids: Sequence[int], prefix: Prefix, *, questions: int, seed: int, observer: Observer
) -> tuple[Row, ...]:
    """Questions about passages from all over the text, each answered behind it."""
    conversations = [(Message(role="user", content=_ASK.format(snippet=snippet)),) for snippet in _snippets(engine, token_ids, questions)]
    wanted = Sampling(max_new_tokens=QUESTION_TOKENS, temperature=0.7, seed=seed, stop=("\n",))
    drawn = engine.generate(conversations, prefix=prefix, sampling=wanted, progress=observer.advance)
    asked = [(Message(role="user", content=completion.text.strip() or _AGAIN),) for completion in drawn]
    return answered_rows(
        engine, asked, prefix, sampling=Sampling(max_new_tokens=ANSWER_TOKENS, temperature=0.7, seed=seed), observer=observer
    )


def answered_rows(
    engine: CompilingEngine, asked: Sequence[Sequence[Message]], prefix: Prefix, *, sampling: Sampling, observer: Observer
) -> tuple[Row, ...]:
    """Each conversation as it stands behind the prefix, and what the model answers there."""
    answers = engine.generate(asked, prefix=prefix, sampling=sampling, progress=observer.advance)
    rendered = prefix.header.prompt_format
    # An answer that ended at once has no token of its own; its end is what the model said.
    return tuple(
        Row(prompt=engine.render(turns, prompt_format=rendered), targets=(answer.token_ids or engine.answer_ids(""),))
        for turns, answer in zip(asked, answers, strict=True)
    )


def _snippets(engine: CompilingEngine, token_ids: Sequence[int], count: int) -> list[str]:
    """Passages at even distances."""
    last = max(0, len(token_ids) - SNIPPET)
    starts = [round(last * (number + 0.5) / count) for number in range(count)]
    return [engine.tokenizer.decode(token_ids[start : start + SNIPPET], skip_special_tokens=True).strip() for start in starts]


def _render(engine: CompilingEngine, text: str) -> tuple[int, ...]:
    return engine.render((Message(role="user", content=text),), prompt_format="continuation")


def _joined(parts: Sequence[Asked]) -> Asked:
    def cat(tensors: list[Tensor]) -> Tensor:
        return torch.cat(tensors, dim=2)

    return Asked(query_LHMD=cat([part.query_LHMD for part in parts]), beside_LHM=cat([part.beside_LHM for part in parts]))
