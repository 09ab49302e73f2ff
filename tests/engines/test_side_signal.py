"""A side signal: merged by share it is a prefix, gated it is added, and a gate of zero changes nothing."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from foreword.engine import Row, TakesSideSignal
from foreword.engines.transformers import TransformersEngine
from foreword.errors import ModelError, PrefixError, PrefixMismatch
from foreword.prefix.artifact import Prefix
from foreword.prefix.rotary import rotate
from foreword.prefix.side_signal import SideSignal
from foreword.types import Message, Sampling

TEXT = "The Eagle is a cheap coffee shop near the river. Aromi serves Chinese food."
TURNING = ("llama", "qwen3", "gpt_neox")
"""Families whose keys turn with position and that see all of it in every layer."""

EngineOf = Callable[..., TransformersEngine]


@pytest.fixture
def beside(engine_of: EngineOf):
    """`beside(family)`: an engine, a prefix of a text, and its side signal with the gate given to every head."""

    def made(family: str, gate: float = 0.0, **config: Any) -> tuple[TransformersEngine, Prefix, SideSignal]:
        engine = engine_of(family, **config)
        key_LHND, value_LHND = engine.read(engine.encode(TEXT))
        prefix = Prefix.make(
            name="tiny",
            kind="text",
            key_LHND=key_LHND,
            value_LHND=value_LHND,
            fingerprint=engine.fingerprint,
            geometry=engine.geometry,
            prompt_format="continuation",
        )
        return engine, prefix, SideSignal.of(prefix, torch.full((engine.geometry.layers, engine.query_heads), gate))

    return made


def rows(engine: TransformersEngine) -> list[Row]:
    return [
        Row(prompt=engine.encode("Which place is cheap?"), targets=(engine.encode(" The Eagle"), engine.encode(" no"))),
        Row(prompt=engine.encode("Where"), targets=(engine.encode(" is it?"),)),
    ]


@pytest.mark.parametrize("family", TURNING)
def test_merged_by_share_it_is_a_prefix(beside: Any, family: str):
    engine, prefix, side = beside(family)
    with torch.inference_mode():
        wanted = engine.target_log_probs(rows(engine), prefix.key_LHND, prefix.value_LHND)
        found = engine.target_log_probs_beside(rows(engine), side, by_share=True)
        alone = engine.target_log_probs(rows(engine))
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)
    assert (found - alone).abs().max() > 0.1


def test_merged_by_share_the_gate_moves_the_share(beside: Any):
    """Keys that are there twice hold twice the mass: a gate of log 2."""
    engine, prefix, side = beside("qwen3", math.log(2))
    double = (torch.cat([prefix.key_LHND] * 2, dim=2), torch.cat([prefix.value_LHND] * 2, dim=2))
    # Behind twice as many positions the prompt begins that much later, and the keys must follow.
    moved = rotate(double[0], engine.geometry, prefix.positions)
    with torch.inference_mode():
        wanted = engine.target_log_probs(rows(engine), moved, double[1])
        found = engine.target_log_probs_beside(rows(engine), side, by_share=True)
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("family", TURNING)
def test_a_gate_of_zero_changes_nothing(beside: Any, family: str):
    engine, _, side = beside(family)
    with torch.inference_mode():
        found = engine.target_log_probs_beside(rows(engine), side)
        assert torch.equal(found, engine.target_log_probs(rows(engine)))


@contextlib.contextmanager
def first_layer(engine: TransformersEngine) -> Iterator[list[torch.Tensor]]:
    """The output of the first layer's attention in each pass while it is open, heads one after the other."""
    seen: list[torch.Tensor] = []
    projection = engine.module.model.layers[0].self_attn.o_proj
    handle = projection.register_forward_pre_hook(lambda _, given: seen.append(given[0].clone()))
    with torch.inference_mode():
        yield seen
    handle.remove()


def attention_alone(engine: TransformersEngine, prefix: Prefix, token_ids: tuple[int, ...]) -> torch.Tensor:
    """What the first layer's heads find in the prefix when they attend to nothing else, from queries as another path shows them: Q T D."""
    asked = engine.asked(token_ids, prefix.key_LHND, prefix.value_LHND, kept=range(len(token_ids)))
    weights_GMN = (asked.query_LHMD[0] @ prefix.key_LHND[0].transpose(1, 2)).softmax(-1)
    return (weights_GMN @ prefix.value_LHND[0]).view(engine.query_heads, len(token_ids), -1)


def test_what_is_added_is_the_gated_attention_over_the_signal_alone(beside: Any):
    """Seen at the first layer, before the gate has changed any query."""
    engine, prefix, side = beside("llama")
    gate_LQ = torch.randn_like(side.gate_LQ)
    token_ids = engine.encode("Which place is cheap?")
    with first_layer(engine) as seen:
        for chosen in (side, side.gated(gate_LQ)):
            engine.target_log_probs_beside([Row(prompt=token_ids, targets=(token_ids[:1],))], chosen)
    added_TQD = (seen[1] - seen[0])[0].view(len(token_ids), engine.query_heads, -1)
    wanted_QTD = gate_LQ[0][:, None, None] * attention_alone(engine, prefix, token_ids)
    torch.testing.assert_close(added_TQD.transpose(0, 1), wanted_QTD, atol=1e-4, rtol=1e-4)


def test_gradients_reach_the_gate_and_tell_the_slope(beside: Any):
    engine, _, side = beside("llama", 0.1)
    gate_LQ = side.gate_LQ.clone().requires_grad_()
    engine.target_log_probs_beside(rows(engine), side.gated(gate_LQ)).sum().backward()
    assert gate_LQ.grad is not None
    step_LQ = torch.zeros_like(side.gate_LQ)
    step_LQ[1, 2] = 1e-2
    with torch.inference_mode():
        up, down = (engine.target_log_probs_beside(rows(engine), side.gated(side.gate_LQ + sign * step_LQ)).sum() for sign in (1, -1))
    torch.testing.assert_close(gate_LQ.grad[1, 2], (up - down) / 2e-2, atol=2e-2, rtol=2e-2)


def test_the_order_of_keys_does_not_matter(beside: Any):
    engine, _, side = beside("llama", 0.4)
    order = torch.randperm(side.positions, generator=torch.Generator().manual_seed(0))
    mixed = SideSignal(
        name="mixed",
        key_LHND=side.key_LHND[:, :, order],
        value_LHND=side.value_LHND[:, :, order],
        gate_LQ=side.gate_LQ,
        fingerprint=side.fingerprint,
    )
    with torch.inference_mode():
        one, other = (engine.target_log_probs_beside(rows(engine), chosen) for chosen in (side, mixed))
    torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


def test_shares_are_those_of_ordinary_attention_to_a_prefix(beside: Any):
    engine, prefix, side = beside("llama", 3.0)
    found = engine.shares_beside(rows(engine), side)
    tokens = sum(row.fed_tokens for row in rows(engine))
    mass_LHN = engine.prefix_attention(rows(engine), prefix.key_LHND, prefix.value_LHND)
    share_LH = found.share_LQ.view(*mass_LHN.shape[:2], -1).sum(-1)
    torch.testing.assert_close(share_LH, mass_LHN.sum(-1) / tokens, atol=1e-4, rtol=1e-4)
    assert (found.fitted_LQ < found.share_LQ + 1).all() and torch.isfinite(found.fitted_LQ).all()


def test_the_fitted_gate_is_the_best_for_the_first_layer(beside: Any):
    """Where queries do not depend on the gate yet, no gate brings the outputs of adding nearer to those of merging."""
    engine, _, side = beside("llama")
    row = [Row(prompt=engine.encode("Which place is cheap?"), targets=())]
    found = engine.shares_beside(row, side)
    fed = [Row(prompt=row[0].prompt, targets=(row[0].prompt[:1],))]
    with first_layer(engine) as seen:
        engine.target_log_probs_beside(fed, side, by_share=True)
        for change in (0.0, 0.02, -0.02):
            engine.target_log_probs_beside(fed, side.gated(found.fitted_LQ + change))
    merged, *added = (out.view(1, -1, engine.query_heads, out.shape[-1] // engine.query_heads) for out in seen)
    best, more, less = ((merged - out).square().sum((0, 1, 3)) for out in added)
    assert (best <= more + 1e-6).all() and (best <= less + 1e-6).all()


def test_answers_go_on_from_what_scoring_says(beside: Any):
    engine, _, side = beside("llama", 0.3)
    conversations = [(Message(role="user", content=text),) for text in ("Which place is cheap?", "Where is it? " * 3)]
    answers = engine.generate_beside(conversations, side, sampling=Sampling(max_new_tokens=6, ignore_end=True))
    plain = engine.generate(conversations, sampling=Sampling(max_new_tokens=6, ignore_end=True))
    assert [answer.token_ids for answer in answers] != [answer.token_ids for answer in plain]
    vocabulary = engine.module.config.vocab_size
    for conversation, answer in zip(conversations, answers, strict=True):
        for place, token in enumerate(answer.token_ids):
            prompt = engine.render(conversation) + answer.token_ids[:place]
            with torch.inference_mode():
                log_p = engine.target_log_probs_beside([Row(prompt=prompt, targets=tuple((one,) for one in range(vocabulary)))], side)
            assert log_p[token] > log_p.max() - 1e-4


def test_it_meets_the_protocol(beside: Any):
    engine, _, side = beside("qwen3")
    assert isinstance(engine, TakesSideSignal)
    assert engine.generate_beside([], side) == []


def test_what_is_refused(beside: Any, engine_of: EngineOf):
    engine, _, side = beside("llama")
    with pytest.raises(PrefixMismatch):
        engine_of("qwen3").target_log_probs_beside(rows(engine), side)
    with pytest.raises(ModelError, match=f"is for {2 * engine.query_heads} query heads"):
        engine.target_log_probs_beside(rows(engine), side.gated(torch.zeros(engine.geometry.layers, 2 * engine.query_heads)))
    near, _, seen_near = beside("gemma3_text", sliding_window=8)
    with pytest.raises(ModelError, match="sliding window"):
        near.target_log_probs_beside(rows(near), seen_near)
    with pytest.raises(PrefixError, match="absolute position embeddings"):
        beside("gpt2")
