"""Dividing a text, and joining what was made of its parts."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from foreword.api import load
from foreword.compiling import assembly
from foreword.compiling.observer import Silent
from foreword.compiling.settings import CompileSettings

TEXT = "Aromi serves Chinese food in the city centre. The Eagle is a cheap coffee shop near the river. "


class Noted(Silent):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.fixture(scope="module")
def engine(tiny_model_folder: Any) -> Any:
    return load(str(tiny_model_folder("llama")), dtype="float32").engine


def planned(engine: Any, text: str, observer: Any) -> assembly.Plan:
    settings = CompileSettings(ratio=8, seed=3)
    return assembly.plan(engine, text, name="small", compiler="compact", kind="compacted", settings=settings, observer=observer)


def read(engine: Any, plan: assembly.Plan) -> list[Any]:
    """The first positions of each part's exact keys and values, for want of better ones."""
    return [tuple(tensor[:, :, : part.positions] for tensor in engine.read(part.token_ids)) for part in plan.parts]


def test_one_part_is_taken_as_it_is(engine: Any):
    noted = Noted()
    plan = planned(engine, TEXT, noted)
    made = read(engine, plan)
    prefix = plan.joined(engine, made, [""])
    assert len(plan.parts) == 1 and noted.notes == []
    assert torch.equal(prefix.key_LHND, made[0][0]) and torch.equal(prefix.value_LHND, made[0][1])
    assert (prefix.name, prefix.header.kind, prefix.header.seed, prefix.header.text_tail) == ("small", "compacted", 3, None)
    assert prefix.header.recipe == plan.recipe and plan.recipe["compiler"] == "compact"


def test_parts_are_composed_and_their_tails_joined(engine: Any):
    noted = Noted()
    plan = planned(engine, TEXT * 8, noted)
    assert len(plan.parts) > 1
    assert f"it is compacted in {len(plan.parts)} parts" in noted.notes[0]
    prefix = plan.joined(engine, read(engine, plan), ["one", *[""] * (len(plan.parts) - 2), "two"])
    recipe: Any = plan.recipe
    assert prefix.positions == round(recipe["tokens"] / 8)
    assert prefix.header.kind == "compacted" and prefix.header.text_tail == "one\ntwo"
