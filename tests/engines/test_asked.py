"""What tokens ask of the prefix before them, checked against the attention that the model pays and the log-probabilities that it gives."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import tiny_models
from foreword.api import load
from foreword.engine import Row, Traceable
from foreword.errors import ModelError, WindowError

PREFIX = "Aromi serves Chinese food in the city centre."
TOKENS = "Which place is cheap?"


@pytest.fixture
def load_tiny(tiny_model_folder: Any):
    def loaded(family: Any, **options: Any) -> Any:
        return load(str(tiny_model_folder(family, **options)), dtype="float32").engine

    return loaded


@pytest.mark.parametrize("family", tiny_models.FAMILIES)
def test_scores_from_queries_are_the_models_own_attention(load_tiny: Any, family: Any):
    engine = load_tiny(family)
    key_LHND, value_LHND = engine.read(engine.encode(PREFIX))
    token_ids = engine.encode(TOKENS)
    asked = engine.asked(token_ids, key_LHND, value_LHND, kept=range(len(token_ids)))
    scores_LHMN = asked.query_LHMD @ key_LHND.transpose(2, 3)
    whole_LHM = torch.logaddexp(scores_LHMN.logsumexp(-1), asked.beside_LHM)
    mass_LHN = (scores_LHMN - whole_LHM[..., None]).exp().sum(2)
    paid_LHN = engine.prefix_attention([Row(prompt=token_ids, targets=())], key_LHND, value_LHND)
    assert all(reach is None or reach > len(token_ids) + key_LHND.shape[2] for reach in engine.reach)
    torch.testing.assert_close(mass_LHN, paid_LHN, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("family", tiny_models.FAMILIES)
def test_reading_behind_keys_and_values_is_reading_on(load_tiny: Any, family: Any):
    engine = load_tiny(family)
    token_ids = engine.encode(PREFIX + TOKENS)
    whole = engine.read(token_ids)
    first = engine.read(token_ids[:9])
    second = engine.read(token_ids[9:], behind=first)
    for one, other, together in zip(first, second, whole, strict=True):
        torch.testing.assert_close(torch.cat([one, other], dim=2), together, atol=1e-4, rtol=1e-4)
    with pytest.raises(WindowError):
        engine.read((5,) * (engine.window - 3), behind=first)


def test_only_the_places_that_are_kept(load_tiny: Any):
    engine = load_tiny("llama")
    key_LHND, value_LHND = engine.read(engine.encode(PREFIX))
    token_ids = engine.encode(TOKENS)
    every = engine.asked(token_ids, key_LHND, value_LHND, kept=range(len(token_ids)))
    some = engine.asked(token_ids, key_LHND, value_LHND, kept=[1, 4])
    layers, heads, _, head_dim = every.query_LHMD.shape
    by_token = every.query_LHMD.view(layers, heads, -1, len(token_ids), head_dim)[:, :, :, [1, 4]]
    assert torch.equal(some.query_LHMD, by_token.flatten(2, 3))


def test_the_engine_is_traceable(load_tiny: Any):
    assert isinstance(load_tiny("llama"), Traceable)


def test_reach_of_sliding_layers(load_tiny: Any):
    engine = load_tiny("gemma3_text", sliding_window=8)
    kinds = engine.module.config.layer_types
    assert engine.reach == tuple(8 if kind == "sliding_attention" else None for kind in kinds)
    assert load_tiny("llama").reach == (None,) * load_tiny("llama").geometry.layers


def test_what_cannot_be_asked(load_tiny: Any):
    engine = load_tiny("llama")
    key_LHND, value_LHND = engine.read(engine.encode(PREFIX))
    with pytest.raises(WindowError, match="at least one token"):
        engine.asked((), key_LHND, value_LHND, kept=[])
    with pytest.raises(WindowError, match="do not fit the window"):
        engine.asked((5,) * engine.window, key_LHND, value_LHND, kept=[0])


def test_capped_scores_are_refused(load_tiny: Any):
    engine = load_tiny("gemma3_text")
    engine.module.config.attn_logit_softcapping = 50.0
    key_LHND, value_LHND = engine.read(engine.encode(PREFIX))
    with pytest.raises(ModelError, match="caps its attention scores"):
        engine.asked((5,), key_LHND, value_LHND, kept=[0])


@pytest.mark.parametrize("family", ["llama", "gemma3_text"])
def test_log_probabilities_of_candidates_agree_with_those_of_targets(load_tiny: Any, family: Any):
    engine = load_tiny(family)
    key_LHND, value_LHND = engine.read(engine.encode(PREFIX))
    rows = [
        Row(prompt=engine.encode(TOKENS), targets=(engine.encode(" The Eagle"), engine.encode(" no"))),
        Row(prompt=engine.encode("Where"), targets=(engine.encode(" is it?"),)),
    ]
    with torch.inference_mode():
        wanted_T = engine.target_log_probs(rows, key_LHND, value_LHND)
        targets_T1 = torch.tensor([token for row in rows for target in row.targets for token in target])[:, None]
        found_T1 = engine.log_probs_of(rows, targets_T1, key_LHND, value_LHND)
    torch.testing.assert_close(found_T1[:, 0], wanted_T, atol=1e-5, rtol=1e-5)
    ids_TC, log_p_TC = engine.likeliest(rows, key_LHND, value_LHND, count=5)
    assert ids_TC.shape == log_p_TC.shape == (len(wanted_T), 5)
    torch.testing.assert_close(log_p_TC, engine.log_probs_of(rows, ids_TC, key_LHND, value_LHND), atol=1e-5, rtol=1e-5)
