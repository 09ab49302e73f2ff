"""Fewer positions out of many: which are kept, and where their keys then stand."""

from __future__ import annotations

import pytest
import torch

from foreword.errors import TuningError
from foreword.tuning.fitting import close_gaps, fit_positions, most_attended, take
from foreword.tuning.initialisation import Start

TEXT = "Aromi serves Chinese food in the city centre, and families are welcome."


@pytest.fixture
def started(engine):
    token_ids = engine.encode(TEXT)
    key_LHND, value_LHND = engine.read(token_ids)
    return Start(key_LHND=key_LHND, value_LHND=value_LHND, prompt_format="continuation", used=frozenset({0}), parents=("x",))


@pytest.mark.parametrize("wanted", [None, "all"])
def test_a_start_of_the_wanted_length_is_left_alone(context_for, started, wanted):
    positions = started.positions if wanted == "all" else None
    assert fit_positions(context_for(positions=positions), started) is started


def test_choosing_everything_changes_nothing(engine, started):
    mass_LHN = torch.rand(engine.geometry.layers, engine.geometry.kv_heads, started.positions)
    kept_LHK = most_attended(mass_LHN, started.positions)
    assert torch.equal(kept_LHK, torch.arange(started.positions).expand_as(mass_LHN))
    assert torch.equal(take(started.key_LHND, kept_LHK), started.key_LHND)
    assert torch.equal(close_gaps(started.key_LHND, kept_LHK, engine.geometry), started.key_LHND)


def test_the_most_attended_are_kept_in_order_per_head_behind_the_sink():
    mass_LHN = torch.tensor([[[0.0, 5.0, 1.0, 4.0, 2.0], [0.0, 1.0, 2.0, 3.0, 4.0]]])
    assert most_attended(mass_LHN, 3).tolist() == [[[0, 1, 3], [0, 3, 4]]]
    assert most_attended(mass_LHN, 1).tolist() == [[[0], [0]]]
    assert mass_LHN[0, 0, 0] == 0.0  # the mass given is not written to


@pytest.mark.parametrize("family", ["llama", "gemma3_text", "gpt_neox", "qwen3"])
def test_closed_gaps_give_the_first_layers_keys_of_the_text_without_the_rest(engine_of, family):
    """The first layer's keys depend on token and position alone: taken together, the kept ones must read like their own text."""
    engine = engine_of(family)
    token_ids = engine.encode(TEXT)
    heads = engine.geometry.kv_heads
    draw = torch.Generator().manual_seed(1)
    kept_HK = torch.stack([torch.randperm(len(token_ids), generator=draw)[:9].sort().values for _ in range(heads)])
    kept_LHK = kept_HK.expand(engine.geometry.layers, -1, -1)
    key_LHND, value_LHND = engine.read(token_ids)
    closed_LHKD = close_gaps(take(key_LHND, kept_LHK), kept_LHK, engine.geometry)
    for head in range(heads):
        key_of_rest, value_of_rest = engine.read([token_ids[place] for place in kept_HK[head].tolist()])
        torch.testing.assert_close(closed_LHKD[0, head], key_of_rest[0, head], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(take(value_LHND, kept_LHK)[0, head], value_of_rest[0, head], rtol=1e-5, atol=1e-5)
    # Unclosed, they do not.
    assert not torch.allclose(take(key_LHND, kept_LHK)[0, 0], engine.read([token_ids[i] for i in kept_HK[0].tolist()])[0][0, 0], atol=1e-2)


def test_keys_of_absolute_positions_stay_as_they_are(engine_of):
    engine = engine_of("gpt2")
    key_LHND, _ = engine.read(engine.encode(TEXT))
    kept_LHK = torch.tensor([0, 3, 7]).expand(engine.geometry.layers, engine.geometry.kv_heads, -1)
    assert torch.equal(close_gaps(take(key_LHND, kept_LHK), kept_LHK, engine.geometry), key_LHND[:, :, [0, 3, 7]])


def test_a_start_is_cut_to_what_is_wanted(engine, context_for, started):
    fitted = fit_positions(context_for(positions=6), started)
    assert fitted.positions == fitted.value_LHND.shape[2] == 6
    assert torch.equal(fitted.key_LHND[:, :, 0], started.key_LHND[:, :, 0])  # the sink, not turned
    assert (fitted.used, fitted.parents, fitted.prompt_format) == (started.used, started.parents, started.prompt_format)
    everywhere = (fitted.value_LHND[:, :, :, None] == started.value_LHND[:, :, None]).all(-1).any(-1)
    assert bool(everywhere.all())  # every value kept is one of the start's


def test_what_is_kept_is_what_the_examples_look_at(engine, context_for, started, texts):
    context = context_for(positions=6)
    from foreword.engine import Row

    rows = [
        Row(prompt=engine.render(example.messages, prompt_format="continuation"), targets=(engine.answer_ids(example.completions[0]),))
        for example in texts.examples[1:17]  # the first stands in the start
    ]
    mass_LHN = engine.prefix_attention(rows, started.key_LHND, started.value_LHND)
    wanted = take(started.value_LHND, most_attended(mass_LHN, 6))
    assert torch.equal(fit_positions(context, started).value_LHND, wanted)


def test_examples_too_long_to_stand_beside_the_start_do_not_look(context_for, started, texts):
    from dataclasses import replace

    from foreword.types import Message

    long = replace(texts.examples[3], messages=(Message(role="user", content="long " * 300),))
    with_long = texts.with_examples([*texts.examples[:3], long, *texts.examples[3:]])
    fitted = [fit_positions(context_for(positions=6, train=data), started) for data in (texts, with_long)]
    assert torch.equal(fitted[0].key_LHND, fitted[1].key_LHND)


def test_too_short_a_start_is_refused(context_for, started):
    with pytest.raises(TuningError, match=rf"99 positions are wanted, but this start has {started.positions}"):
        fit_positions(context_for(positions=99), started)
