"""Training a compacted prefix until it says what the text says, and going on after an interruption."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from foreword.api import load
from foreword.compiling import references, source
from foreword.compiling.compilers import compact, distil, text
from foreword.compiling.divergence import mean_divergence, teach
from foreword.compiling.observer import Silent
from foreword.compiling.settings import CompileSettings
from foreword.errors import ConfigError, TuningError

TEXT = "Aromi serves Chinese food in the city centre.\nThe Eagle is a cheap coffee shop near the river. " * 4


class Stops(Silent):
    """An observer that ends the work, as a user's interrupt would, once so many steps were trained."""

    def __init__(self, after: int) -> None:
        self._left, self._training, self.notes = after, False, []

    def stage(self, text: str, total: int) -> None:
        self._training = text == "training"

    def advance(self, pieces: int) -> None:
        self._left -= pieces if self._training else 0
        if self._left < 0:
            raise KeyboardInterrupt

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.fixture(scope="module")
def engine(tiny_model_folder: Any) -> Any:
    return load(str(tiny_model_folder("llama")), dtype="float32").engine


def settings(**fields: Any) -> CompileSettings:
    return CompileSettings(**{"questions": 4, "ratio": 8, "steps": 20, **fields})


def distance(engine: Any, prefix: Any) -> float:
    """Mean divergence from the text on its own reading and questions."""
    whole = text.compile_source(engine, TEXT, name="whole")
    token_ids = source.tokens_of(engine, TEXT, chat=False)
    found = references.collect(engine, token_ids, whole, kept=8, questions=4, seed=0, observer=Silent())
    taught = teach(engine, [*found.reading_rows, *found.asking_rows], whole.key_LHND, whole.value_LHND)
    return float(mean_divergence(engine, taught, prefix.key_LHND, prefix.value_LHND).mean())


def test_it_comes_nearer_to_the_text_than_compaction_alone(engine: Any):
    before = compact.compile_source(engine, TEXT, name="small", settings=settings())
    after = distil.compile_source(engine, TEXT, name="small", settings=settings(steps=40))
    assert after.positions == before.positions and after.header.kind == "distilled"
    assert distance(engine, after) < 0.8 * distance(engine, before)


def test_an_interrupted_run_goes_on_and_ends_where_it_would_have(engine: Any, tmp_path: Path):
    whole = distil.compile_source(engine, TEXT, name="small", settings=settings())
    with pytest.raises(KeyboardInterrupt):
        distil.compile_source(engine, TEXT, name="small", settings=settings(), observer=Stops(7), folder=tmp_path)
    again = Stops(1000)
    resumed = distil.compile_source(engine, TEXT, name="small", settings=settings(), observer=again, folder=tmp_path)
    assert again.notes == ["Going on after an interruption: part 1, step 5."]
    assert resumed.header.digest == whole.header.digest
    assert not list(tmp_path.glob("*.safetensors")), "a finished run needs no state"


def test_a_long_text_goes_on_in_its_second_part(engine: Any, tmp_path: Path):
    long = TEXT * 6
    whole = distil.compile_source(engine, long, name="small", settings=settings(ratio=20, steps=6))
    with pytest.raises(KeyboardInterrupt):
        distil.compile_source(engine, long, name="small", settings=settings(ratio=20, steps=6), observer=Stops(7), folder=tmp_path)
    again = Stops(1000)
    resumed = distil.compile_source(engine, long, name="small", settings=settings(ratio=20, steps=6), observer=again, folder=tmp_path)
    assert any("part 2" in note for note in again.notes)
    assert resumed.header.digest == whole.header.digest
    recipe: Any = resumed.header.recipe
    assert resumed.positions == round(recipe["tokens"] / 20)


def test_a_folder_with_other_work_is_refused(engine: Any, tmp_path: Path):
    distil.compile_source(engine, TEXT, name="small", settings=settings(steps=1), folder=tmp_path)
    with pytest.raises(TuningError, match="holds a run that differs in: recipe"):
        distil.compile_source(engine, TEXT, name="small", settings=settings(steps=2), folder=tmp_path)


def test_without_questions_there_is_nothing_to_learn_from(engine: Any):
    with pytest.raises(ConfigError, match="ask for at least one"):
        distil.compile_source(engine, TEXT, name="small", settings=settings(questions=0))


def test_as_many_positions_as_tokens_need_no_training(engine: Any):
    prefix = distil.compile_source(engine, TEXT, name="small", settings=settings(ratio=1))
    assert prefix.header.positions == prefix.header.recipe["tokens"]
