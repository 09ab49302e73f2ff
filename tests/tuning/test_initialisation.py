"""Initialisations by name."""

from __future__ import annotations

import pytest

from foreword.errors import RegistryError
from foreword.tuning import initialisation
from foreword.tuning.initialisations import few_shot


def test_they_are_found_by_name():
    assert initialisation.get("few-shot") is few_shot
    with pytest.raises(RegistryError, match="No `warm` among initialisations"):
        initialisation.get("warm")


@pytest.mark.parametrize("family", ["llama", "gemma3_text", "gpt2", "gpt_neox", "qwen3"])
@pytest.mark.parametrize("name, argument", [("few-shot", "2"), ("text", "Be kind."), ("random", None)])
def test_each_starts_on_every_family(engine_of, context_for, family, name, argument):
    engine = engine_of(family)
    made = initialisation.get(name).start(context_for(engine=engine, argument=argument, positions=8))
    shape = (engine.geometry.layers, engine.geometry.kv_heads, 8, engine.geometry.head_dim)
    assert made.key_LHND.shape == made.value_LHND.shape == shape and made.positions == 8
    assert bool(made.key_LHND.isfinite().all())
