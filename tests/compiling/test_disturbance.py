"""How much of what each part says is left in a composition, measured by the model."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from foreword.api import load
from foreword.compiling import disturbance
from foreword.compiling.compilers.text import compile_source
from foreword.compiling.disturbance import Disturbance
from foreword.prefix.artifact import Prefix

TEXTS = ("The Eagle is a cheap coffee shop near the river.", "Aromi serves Chinese food in the city centre.")


@pytest.fixture(scope="module")
def engine(tiny_model_folder: Any) -> Any:
    return load(str(tiny_model_folder("llama")), dtype="float32").engine


@pytest.fixture(scope="module")
def parts(engine: Any) -> list[Prefix]:
    return [compile_source(engine, text, name=f"part-{number}") for number, text in enumerate(TEXTS)]


def loud(engine: Any, name: str) -> Prefix:
    """A part that draws all attention to itself: long keys, large values."""
    shape = (engine.geometry.layers, engine.geometry.kv_heads, 8, engine.geometry.head_dim)
    key_LHND, value_LHND = (20 * torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
    return Prefix.make(
        name=name,
        kind="learned",
        key_LHND=key_LHND,
        value_LHND=value_LHND,
        fingerprint=engine.fingerprint,
        geometry=engine.geometry,
        prompt_format="continuation",
    )


def test_a_part_alone_keeps_all(engine: Any, parts: list[Prefix]):
    (found,) = disturbance.measure(engine, parts[:1], questions=2)
    assert found.part == "part-0" and found.by is None
    assert found.nats < 1e-4 < found.nats_without and found.kept > 0.99
    assert disturbance.conflicts([found]) == []


def test_the_part_that_drowns_the_others_is_named(engine: Any, parts: list[Prefix]):
    several = [*parts, loud(engine, "loud")]
    found = disturbance.measure(engine, several, questions=2, texts=dict(enumerate(TEXTS)))
    assert [one.part for one in found] == ["part-0", "part-1", "loud"]
    assert [one.by for one in found[:2]] == ["loud", "loud"]
    assert all(one.nats > 0 and one.nats_by > 0 for one in found[:2])
    assert found == disturbance.measure(engine, several, questions=2, texts=dict(enumerate(TEXTS))), "the same seed, the same figures"
    reported = disturbance.conflicts(found)
    assert {conflict.parts for conflict in reported} >= {("part-0", "loud"), ("part-1", "loud")}


def test_the_worst_comes_first_and_says_how_much_is_left():
    rows = [
        Disturbance(part="fine", nats=0.1, nats_without=1.0, by="bad", nats_by=0.1),
        Disturbance(part="half", nats=0.6, nats_without=1.0, by="bad", nats_by=0.5),
        Disturbance(part="gone", nats=3.0, nats_without=1.0, by="bad", nats_by=2.0),
    ]
    found = disturbance.conflicts(rows)
    assert [conflict.parts for conflict in found] == [("gone", "bad"), ("half", "bad")]
    assert "keeps 0%" in found[0].what and "keeps 40%" in found[1].what and "2.00 nats" in found[0].what
