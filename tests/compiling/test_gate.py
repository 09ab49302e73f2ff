"""A relevance detector made from a text, by the model's own questions and by a user's queries."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import pytest

from foreword.api import compile_text, load
from foreword.compiling import gate
from foreword.compiling.background import BACKGROUND
from foreword.compiling.observer import Silent
from foreword.errors import ConfigError, DataError, PrefixError
from foreword.prefix.relevance import Query
from foreword.types import Completion, Usage
from word_vectors import WordVectors

TEXT = (
    "The Skylark grinds beans for espresso. Its burrs are made of steel and have to be cleaned every week with a dry brush. "
    "Descale the boiler every three months. The motor has a guarantee of two years, the boiler one of three. "
    "Never wash the hopper in a dishwasher. Spare parts are sent from the workshop in Leith within ten days. "
)
QUERIES = [
    *("How often do I clean the burrs?", "What are the burrs made of?", "When should I descale the boiler?"),
    *("How long is the guarantee on the motor?", "Is the boiler still under guarantee?", "Can the hopper go into the dishwasher?"),
    *("Where are spare parts sent from?", "How fast do spare parts arrive?", "Which brush do I clean the Skylark with?"),
]


@pytest.fixture(scope="module")
def model(tiny_model_folder: Any) -> Any:
    return load(str(tiny_model_folder("llama", max_position_embeddings=2048)), dtype="float32")


@pytest.fixture(scope="module")
def embedder() -> WordVectors:
    return WordVectors()


class Notes(Silent):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.stages: list[tuple[str, int]] = []
        self.done = 0
        self.notes: list[str] = []

    def stage(self, text: str, total: int) -> None:
        self.stages.append((text, total))

    def advance(self, pieces: int) -> None:
        self.done += pieces

    def note(self, text: str) -> None:
        self.notes.append(text)


class Asker:
    """The tiny model's engine, but with questions written for it: a real engine in everything that the gate needs besides."""

    def __init__(self, engine: Any, *rounds: list[str]) -> None:
        self._engine, self._rounds, self.asked = engine, list(rounds), 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def generate(self, conversations: Any, **options: Any) -> list[Completion]:
        self.asked += len(conversations)
        texts = self._rounds.pop(0)
        usage = Usage(prompt_tokens=1, completion_tokens=1)
        return [Completion(text=text, token_ids=(1,), usage=usage, finish_reason="stop", seconds=0.0) for text in texts]


# --- by a user's queries --------------------------------------------------------------------------------------------


def test_its_own_business_and_another_s(embedder: WordVectors):
    found = gate.detector_for_queries(TEXT, QUERIES, level=0.2, embedder=embedder)
    for text, wanted in (("How do I clean the steel burrs?", True), ("Write a poem about the sea.", False), ("", False)):
        assert found.wants(Query.of(text, embedder.embed([text])[0])) is wanted
    assert gate.kept_off(found, embedder=embedder) > 0.8
    assert (found.embedder, found.parts[0].asked_by, len(found.parts[0].query_MD)) == ("words/48", "user", 9)


def test_the_watcher_hears_how_much_is_kept_off(embedder: WordVectors):
    notes = Notes()
    gate.detector_for_queries(TEXT, QUERIES, level=0.2, observer=notes, embedder=embedder)
    assert len(notes.notes) == 1 and f"of {len(BACKGROUND)} requests that have nothing to do with any text" in notes.notes[0]


def test_a_query_counts_once(embedder: WordVectors):
    found = gate.detector_for_queries(TEXT, QUERIES + [f" {query}\n" for query in QUERIES], level=0.2, embedder=embedder)
    assert len(found.parts[0].query_MD) == 9
    with pytest.raises(ConfigError, match="needs at least 9 queries to calibrate by; got 1"):
        gate.detector_for_queries(TEXT, QUERIES[:1] * 20, level=0.1, embedder=embedder)


def test_too_few_queries_for_the_level(embedder: WordVectors):
    with pytest.raises(ConfigError, match=r"A level of 0.05 needs at least 19 queries to calibrate by; got 9.*enough for a level of 0.1\."):
        gate.detector_for_queries(TEXT, QUERIES, level=0.05, embedder=embedder)


@pytest.mark.parametrize("level", [0, 1, -1, 5])
def test_a_level_that_is_no_share(model: Any, level: float):
    with pytest.raises(ConfigError, match="more than 0, less than 1"):
        gate.detector_for_queries(TEXT, QUERIES, level=level)
    with pytest.raises(ConfigError, match="more than 0, less than 1"):
        gate.detector(model.engine, TEXT, level=level)


@pytest.mark.parametrize("blank", ["", "  ", "?"])
def test_an_empty_query_is_pointed_at(blank: str):
    with pytest.raises(DataError, match="Query 3 of 10 has no word"):
        gate.detector_for_queries(TEXT, [*QUERIES[:2], blank, *QUERIES[2:]], level=0.2)


@pytest.mark.parametrize("blank", ["", " \n", "---"])
def test_a_text_without_words(model: Any, blank: str):
    with pytest.raises(PrefixError, match="no words"):
        gate.detector_for_queries(blank, QUERIES, level=0.2)
    with pytest.raises(PrefixError, match="no words"):
        gate.detector(model.engine, blank)


def test_a_long_text_has_longer_passages_and_no_more_of_them(embedder: WordVectors):
    found = gate.detector_for_queries(TEXT * 900, QUERIES, level=0.2, embedder=embedder)
    assert gate.MOST_PASSAGES * 0.7 < len(found.parts[0].passage_ND) <= gate.MOST_PASSAGES


def test_another_embedder_is_refused(embedder: WordVectors):
    found = gate.detector_for_queries(TEXT, QUERIES, level=0.2, embedder=embedder)
    with pytest.raises(PrefixError, match="made with the embedder `words/48`; got `other/48`"):
        gate.kept_off(found, embedder=WordVectors("other/48"))


# --- by the model's own questions -----------------------------------------------------------------------------------


def test_a_model_asks_and_the_prefix_carries_the_detector(model: Any, embedder: WordVectors, tmp_path: Any):
    notes = Notes()
    found = gate.detector(model.engine, TEXT, level=0.2, questions=6, observer=notes, embedder=embedder)
    assert notes.stages == [("asking itself questions", 6)] and notes.done == 6
    prefix = gate.attach(compile_text(model, TEXT, name="mill"), found)
    prefix.save(tmp_path / "mill.safetensors")
    assert type(prefix).load(tmp_path / "mill.safetensors").header.relevance == found.relevance()
    assert found.parts[0].asked_by == "model" and len(found.parts[0].query_MD) == 6


@pytest.mark.parametrize("text", ["Brew at 93 degrees.", TEXT, TEXT * 50])
def test_every_prompt_is_another(text: str):
    prompts = gate._prompts(text, 40)
    assert len(set(prompts)) == 40
    assert text[:15] in prompts[0] and (len(text) > 1000 or text.split()[-1] in prompts[-1])


def test_draws_follow_from_the_seed(model: Any, embedder: WordVectors):
    made = [gate.detector(model.engine, TEXT, level=0.2, questions=5, seed=seed, embedder=embedder).relevance() for seed in (1, 1, 2)]
    assert made[0] == made[1] != made[2]


def test_questions_are_different_and_about_the_text(model: Any):
    first = ["How old is it?", "How old is it? Ten.", "Which passage is this?", "", "Who made it?", "It is a mill."]
    engine = Asker(model.engine, first, ["Where is Leith?", "Is it steel?", "Who made it?", "What is it?"], ["Why steel?"])
    notes = Notes()
    asked = gate.ask(engine, TEXT, questions=6, seed=0, observer=notes)  # type: ignore[arg-type]
    assert asked == ["How old is it?", "Who made it?", "Where is Leith?", "Is it steel?", "What is it?", "Why steel?"]
    assert notes.done == 6


def test_what_is_no_question_is_taken_only_where_there_are_too_few(model: Any):
    rounds = [["How old is it?", "It is a mill.", "Which passage is this?"], ["It is a mill.", "!"], *[[]] * 4]
    assert gate.ask(Asker(model.engine, *rounds), TEXT, questions=3, seed=0, observer=Silent()) == [  # type: ignore[arg-type]
        *("How old is it?", "It is a mill.", "Which passage is this?")
    ]


def test_a_model_that_has_nothing_to_ask(model: Any):
    with pytest.raises(PrefixError, match="asked only 1 different questions about this text, and 2 were wanted"):
        gate.ask(Asker(model.engine, ["Why?", "Why?"], ["Why?"], [" "], *[[]] * 3), TEXT, questions=2, seed=0, observer=Silent())  # type: ignore[arg-type]


def test_too_few_questions_are_refused_before_any_is_asked(model: Any, embedder: WordVectors):
    engine = Asker(model.engine)
    with pytest.raises(ConfigError, match="needs at least 19 queries to calibrate by; got 18"):
        gate.detector(engine, TEXT, level=0.05, questions=18, embedder=embedder)  # type: ignore[arg-type]
    assert engine.asked == 0


# --- the background, and the embedded embedder ----------------------------------------------------------------------


def test_the_background_has_no_request_twice_and_none_without_words():
    assert len(set(BACKGROUND)) == len(BACKGROUND) >= 100
    assert all(any(letter.isalpha() for letter in request) for request in BACKGROUND)


@pytest.mark.skipif(find_spec("wordllama") is None, reason="the extra `retrieval` is not installed")
def test_with_the_embedded_embedder():
    more = [f"{query[:-1]}, please?" for query in QUERIES]
    found = gate.detector_for_queries(TEXT, [*QUERIES, *more, "How do I order a new burr?"], level=0.05)
    assert gate.kept_off(found) == 1.0
    cleaning, hamlet = gate._queries(["How do I clean the burrs of my Skylark?", "Who wrote Hamlet?"], gate._embedder())
    assert found.wants(cleaning) and not found.wants(hamlet)
