"""A relevance detector for a prefix's text: what its own business is, learned from the text and calibrated on queries about it.

The detector knows the text's passages and words, and queries that are the prefix's business (`foreword.prefix.relevance` explains its
score): best a user's own, else questions that the model asks itself about passages of the text. Its threshold is set by the same queries.
Conformal calibration promises that of queries *like those* at most the wanted share is missed, and nothing about queries of another
kind: a small model's own questions are plainer and stranger than people's, so with them more or fewer are missed than was wanted.

Axes: N passage, D dimension of the embedder.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from foreword.compiling.background import BACKGROUND
from foreword.compiling.observer import Observer, Silent
from foreword.errors import DataError, PrefixError
from foreword.types import Message, Sampling

if TYPE_CHECKING:
    import numpy as np

    from foreword.compiling.compiler import CompilingEngine
    from foreword.prefix.artifact import Prefix
    from foreword.prefix.relevance import AskedBy, Detector, Query
    from foreword.retrieval.embedder import Embedder

LEVEL = 0.05
QUESTIONS = 64
PASSAGE, MOST_PASSAGES = 180, 1024
"""Characters of a passage (some thirty words), and how many a detector holds: of a longer text, passages are longer."""
ASKED_PASSAGE = 360
"""Characters of the passages that the model is asked about."""
QUESTION_TOKENS, ROUNDS = 32, 6
_ASK = "Here is a part of a longer text: “{passage}”\n\nWrite one question that a reader could ask about it."
_ANOTHER = " Not the first that comes to mind, but number {number}."
_SHOTS = (
    (
        "The mill's wheel was taken down in 1907 after two floods had cracked its axle, and the family rented the upper floor to a weaver "
        "from then on.",
        "Why was the wheel removed?",
    ),
    (
        "Members may bring one guest on weekdays. Guests sign the book at the desk, pay half the day's fee and leave by eight in the "
        "evening.",
        "Can I take a friend along on a Saturday?",
    ),
    (
        "Compared with the older pump, the new one moved 14 percent more water while drawing the same current, but its seals wore out "
        "twice as fast.",
        "What did they find out about the new model?",
    ),
    (
        "Then Ines put the letter back where she had found it, and when her brother came in she asked him about the horses instead.",
        "How does Ines hide what she knows from her brother?",
    ),
)
"""Passages and questions in other words than theirs, so that the model does not only turn sentences round."""
_ABOUT_ASKING = re.compile(r"\b(?:passages?|questions?|answers?|paragraph|sentences?|texts?|assistant)\b|what you mean", re.IGNORECASE)


def detector(
    engine: CompilingEngine,
    text: str,
    *,
    level: float = LEVEL,
    questions: int = QUESTIONS,
    seed: int = 0,
    observer: Observer | None = None,
    embedder: Embedder | None = None,
) -> Detector:
    """A detector for `text`, calibrated on questions that the model asks itself.

    Args:
        level: the share of its own queries that the prefix may miss.
        questions: how many questions to ask.
        embedder: by default the embedded one.

    Raises:
        ConfigError: the level is no share between 0 and 1, or there are too few questions for it.
        PrefixError: the text is empty, or the model has nothing to ask about it.
        ModelError: the embedder is not installed, or the model's chat template cannot be continued after a prefix.
    """
    from foreword.prefix.relevance import check_enough

    watching = observer or Silent()
    # What cannot be used is said before minutes are spent on asking.
    check_enough(questions, level)
    _check_text(text)
    embedder = embedder or _embedder()
    asked = ask(engine, text, questions=questions, seed=seed, observer=watching)
    return _calibrated(text, asked, embedder, level=level, asked_by="model", observer=watching)


def detector_for_queries(
    text: str, queries: Sequence[str], *, level: float = LEVEL, observer: Observer | None = None, embedder: Embedder | None = None
) -> Detector:
    """A detector for `text`, calibrated on a user's own queries. No model is needed.

    Args:
        queries: such as the prefix will be asked; each counts once, however often it stands there.

    Raises:
        ConfigError: the level is no share between 0 and 1, or there are too few queries for it.
        DataError: a query is empty.
        PrefixError: the text is empty.
        ModelError: the embedder is not installed.
    """
    from foreword.prefix.relevance import check_enough, words

    different = list(dict.fromkeys(query.strip() for query in queries))
    check_enough(len(different), level)
    _check_text(text)
    for number, query in enumerate(queries, start=1):
        if not words(query):
            raise DataError(f"Query {number} of {len(queries)} has no word: {query[:40]!r}. Take it out: it could be anybody's.")
    return _calibrated(text, different, embedder or _embedder(), level=level, asked_by="user", observer=observer or Silent())


def attach(prefix: Prefix, found: Detector) -> Prefix:
    """The prefix with a detector, in place of the one it may have had. Its digest stays: it holds the same keys and values."""
    return prefix.with_detector(found)


def kept_off(found: Detector, requests: Sequence[str] = BACKGROUND, *, embedder: Embedder | None = None) -> float:
    """The share of requests that a detector keeps its prefix off; those that come with it have nothing to do with any text.

    Raises:
        PrefixError: the embedder is not the detector's.
    """
    embedder = embedder or _embedder()
    if embedder.name != found.embedder:
        raise PrefixError(f"The detector was made with the embedder `{found.embedder}`; got `{embedder.name}`. Use the first.")
    read = _queries(requests, embedder)
    return sum(not found.wants(query) for query in read) / len(read)


def ask(engine: CompilingEngine, text: str, *, questions: int, seed: int, observer: Observer) -> list[str]:
    """Questions that the model asks about passages from all over the text; drawn again where they are empty, the same, or about asking.

    Raises:
        PrefixError: it does not come up with enough different ones.
        ModelError: its chat template cannot be continued after a prefix.
    """
    shown = _shown(engine)
    observer.stage("asking itself questions", questions)
    good: dict[str, None] = {}
    spare: dict[str, None] = {}
    for attempt in range(ROUNDS):
        missing = questions - len(good)
        turns = [(Message(role="user", content=prompt),) for prompt in _prompts(text, missing)]
        sampling = Sampling(max_new_tokens=QUESTION_TOKENS, temperature=0.7, seed=seed + attempt, stop=("\n",))
        for completion in engine.generate(turns, prefix=shown, sampling=sampling):
            asked, mark, _ = completion.text.strip().partition("?")
            if not any(letter.isalnum() for letter in asked):
                continue
            (good if mark and not _ABOUT_ASKING.search(asked) else spare)[asked + mark] = None
        observer.advance(missing - (questions - len(good)))
        if len(good) == questions:
            break
    observer.advance(questions - len(good))
    found = [*good, *(one for one in spare if one not in good)][:questions]
    if len(found) < questions:
        raise PrefixError(
            f"The model asked only {len(found)} different questions about this text, and {questions} were wanted. Ask for fewer, or "
            "calibrate by queries of your own."
        )
    return found


def _embedder() -> Embedder:
    from foreword.retrieval import embedder

    return embedder.get()


def _check_text(text: str) -> None:
    from foreword.prefix.relevance import words

    if not words(text):
        raise PrefixError("There is no text to make a detector of: it has no words. Give at least one.")


def _calibrated(text: str, queries: Sequence[str], embedder: Embedder, *, level: float, asked_by: AskedBy, observer: Observer) -> Detector:
    from foreword.prefix.relevance import Detector, Part, words

    # Lines come out a little shorter than asked for.
    passages = _passages(text, max(PASSAGE, round(1.2 * len(text) / MOST_PASSAGES)))[:MOST_PASSAGES]
    part = Part.calibrated(
        passage_ND=embedder.embed(passages),
        center_D=embedder.embed(BACKGROUND).mean(axis=0),
        known=words(text),
        queries=_queries(queries, embedder),
        level=level,
        asked_by=asked_by,
    )
    found = Detector(embedder=embedder.name, parts=(part,))
    share = kept_off(found, embedder=embedder)
    observer.note(f"The detector keeps the prefix off {share:.0%} of {len(BACKGROUND)} requests that have nothing to do with any text.")
    return found


def _queries(texts: Sequence[str], embedder: Embedder) -> list[Query]:
    from foreword.prefix.relevance import Query, excerpt

    vectors_ND: np.ndarray = embedder.embed([excerpt(text) for text in texts])
    return [Query.of(text, vector_D) for text, vector_D in zip(texts, vectors_ND, strict=True)]


def _passages(text: str, characters: int) -> list[str]:
    """The text, cut between words into passages of at most so many characters."""
    return textwrap.wrap(text, characters)


def _prompts(text: str, count: int) -> list[str]:
    """Requests for a question about passages that begin at even distances; all different, because equal ones get equal questions."""
    pieces = _passages(text, ASKED_PASSAGE // 6)
    last = max(0, len(pieces) - 3)
    asked: dict[str, int] = {}
    prompts = []
    for number in range(count):
        start = round(last * (number + 0.5) / count)
        passage = " ".join(pieces[start : start + 6])
        asked[passage] = asked.get(passage, 0) + 1
        another = "" if asked[passage] == 1 else _ANOTHER.format(number=asked[passage])
        prompts.append(_ASK.format(passage=passage) + another)
    return prompts


def _shown(engine: Any) -> Prefix:
    """The examples of questions, read once for all passages."""
    from foreword.prefix.artifact import Prefix

    turns: list[Message] = []
    for passage, question in _SHOTS:
        turns += [Message(role="user", content=_ASK.format(passage=passage)), Message(role="assistant", content=question)]
    key_LHND, value_LHND = engine.read(engine.render_context(turns))
    return Prefix.make(
        name="examples",
        kind="text",
        key_LHND=key_LHND,
        value_LHND=value_LHND,
        fingerprint=engine.fingerprint,
        geometry=engine.geometry,
        prompt_format="continuation",
    )
