"""The engine's numbers, against an untouched transformers model of the same checkpoint.

Axes: L layer, B row, H KV head, N virtual position, T token, V vocabulary.
"""

from __future__ import annotations

import pytest
import torch
from transformers import DynamicCache

import tiny_models
from foreword.engine import Differentiable, Engine, Generates, Row, TakesPrefix
from foreword.engines.transformers import load
from foreword.errors import ModelError, WindowError
from foreword.types import Message

FAMILIES = [
    *((family, {}) for family in tiny_models.FAMILIES),
    ("gemma3_text", {"sliding_window": 8}),
    ("gemma3_text", {"tie_word_embeddings": True, "final_logit_softcapping": 5.0}),
]
# Float32 through two layers; log-probabilities here go down to about -30.
TOLERANCE = 1e-4
ROWS = (
    Row(prompt=(40, 41, 42, 43, 44), targets=((50, 51, 52), (60,), (70, 71, 72, 73, 74, 75))),
    Row(prompt=(45,), targets=((80, 81),)),
    Row(prompt=tuple(range(100, 130)), targets=((90, 91, 92), (93, 94))),
)


def text_ids(engine, length: int) -> tuple[int, ...]:
    text = "Aromi serves Chinese food in the city centre, and families are welcome. My order 4711 has not arrived. "
    return engine.encode(text * 4)[:length]


def their_log_probs(module, row: Row, key_LHND=None, value_LHND=None) -> torch.Tensor:
    """Each target after the prompt on its own, through the module's forward, with a plain cache that holds the prefix."""
    parts = []
    for target in row.targets:
        tokens = torch.tensor([[*row.prompt, *target]])
        positions = 0 if key_LHND is None else key_LHND.shape[2]
        cache = None
        if positions:
            cache = DynamicCache()
            for layer, (key, value) in enumerate(zip(key_LHND, value_LHND, strict=True)):
                cache.update(key[None], value[None], layer)
        logits = module(
            tokens, attention_mask=torch.ones(1, positions + tokens.shape[1]), past_key_values=cache, use_cache=cache is not None
        ).logits
        log_probs = logits[0, len(row.prompt) - 1 : -1].float().log_softmax(-1)
        parts.append(log_probs.gather(1, torch.tensor(target)[:, None])[:, 0])
    return torch.cat(parts)


def random_prefix(engine, positions: int, seed: int = 0):
    shape = (engine.geometry.layers, engine.geometry.kv_heads, positions, engine.geometry.head_dim)
    draw = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(shape, generator=draw).requires_grad_() for _ in range(2))


def test_it_meets_the_protocols(engine_of):
    engine = engine_of("llama")
    assert all(isinstance(engine, protocol) for protocol in (Engine, Generates, TakesPrefix, Differentiable))
    assert engine.window == tiny_models.WINDOW and engine.dtype == torch.float32
    assert engine.parameters == sum(weight.numel() for weight in engine.module.parameters())


@pytest.mark.parametrize(("family", "config"), FAMILIES)
def test_log_probs_are_the_modules(engine_of, reference_of, family, config):
    engine, module = engine_of(family, **config), reference_of(family, **config)
    with torch.no_grad():
        ours = engine.target_log_probs(ROWS)
        theirs = torch.cat([their_log_probs(module, row) for row in ROWS])
    torch.testing.assert_close(ours, theirs, atol=TOLERANCE, rtol=0)
    assert ours.dtype == torch.float32 and theirs.std() > 0.3


@pytest.mark.parametrize(("family", "config"), FAMILIES)
def test_siblings_do_not_see_each_other(engine_of, family, config):
    engine = engine_of(family, **config)
    key_LHND, value_LHND = random_prefix(engine, 4)
    with torch.no_grad():
        together = engine.target_log_probs(ROWS, key_LHND, value_LHND)
        alone = [
            engine.target_log_probs([Row(prompt=row.prompt, targets=(target,))], key_LHND, value_LHND)
            for row in ROWS
            for target in row.targets
        ]
    torch.testing.assert_close(together, torch.cat(alone), atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize(("family", "config"), FAMILIES)
@pytest.mark.parametrize("split", [1, 37, 60])
def test_a_text_that_was_read_gives_the_logits_of_the_text(engine_of, reference_of, family, config, split):
    """The golden test: prefix and rest against the whole, also where the prefix is longer than a sliding window."""
    engine, module = engine_of(family, **config), reference_of(family, **config)
    ids = text_ids(engine, 80)
    key_LHND, value_LHND = engine.read(ids[:split])
    assert key_LHND.shape == (engine.geometry.layers, engine.geometry.kv_heads, split, engine.geometry.head_dim)
    # Padded beside a longer row and a shorter one.
    rows = [Row(prompt=ids[split : split + cut], targets=(ids[split + cut :],)) for cut in (1, 9, 15)]
    rows.append(Row(prompt=ids[split : split + 2], targets=((7,),)))
    with torch.no_grad():
        ours = engine.target_log_probs(rows, key_LHND, value_LHND)
        whole = module(torch.tensor([ids])).logits[0, :-1].log_softmax(-1).gather(1, torch.tensor(ids[1:])[:, None])[:, 0]
    wanted = [whole[split + cut - 1 :] for cut in (1, 9, 15)]
    torch.testing.assert_close(ours[:-1], torch.cat(wanted), atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize(("family", "config"), FAMILIES)
def test_reading_gives_the_modules_own_cache(engine_of, reference_of, family, config):
    engine, module = engine_of(family, **config), reference_of(family, **config)
    ids = text_ids(engine, 40)
    cache = DynamicCache()
    with torch.no_grad():
        module(torch.tensor([ids]), past_key_values=cache, use_cache=True)
    for ours, theirs in zip(engine.read(ids), ("keys", "values"), strict=True):
        torch.testing.assert_close(ours, torch.stack([getattr(layer, theirs)[0] for layer in cache.layers]), atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("family", tiny_models.FAMILIES)
def test_no_positions_change_nothing(engine_of, prefix_of, family):
    engine = engine_of(family)
    key_LHND, value_LHND = engine.read(())
    assert key_LHND.shape[2] == value_LHND.shape[2] == 0
    with torch.no_grad():
        torch.testing.assert_close(engine.target_log_probs(ROWS, key_LHND, value_LHND), engine.target_log_probs(ROWS), atol=1e-6, rtol=0)
    from foreword.prefix.artifact import Prefix

    empty = Prefix.make(
        name="empty",
        kind="learned",
        key_LHND=key_LHND,
        value_LHND=value_LHND,
        fingerprint=engine.fingerprint,
        geometry=engine.geometry,
        prompt_format="full",
    )
    asked = [(Message(role="user", content="Hi"),), (Message(role="user", content="the city centre"),)]
    with_empty, without = engine.generate(asked, prefix=empty), engine.generate(asked)
    assert [answer.token_ids for answer in with_empty] == [answer.token_ids for answer in without]


@pytest.mark.parametrize(("family", "config"), FAMILIES)
@pytest.mark.parametrize("positions", [1, 12])
def test_gradients_are_those_of_a_plain_forward(engine_of, reference_of, family, config, positions):
    engine, module = engine_of(family, **config), reference_of(family, **config)
    ours, theirs = random_prefix(engine, positions), random_prefix(engine, positions)
    mine = engine.target_log_probs(ROWS, *ours)
    reference = torch.cat([their_log_probs(module, row, *theirs) for row in ROWS])
    torch.testing.assert_close(mine, reference, atol=TOLERANCE, rtol=0)
    weight = torch.randn(len(reference), generator=torch.Generator().manual_seed(1))
    (mine * weight).sum().backward()
    (reference * weight).sum().backward()
    for leaf, wanted in zip(ours, theirs, strict=True):
        # Sums over tokens in another order: to a ten-thousandth of the largest entry.
        largest = wanted.grad.abs().max()
        assert largest > 0
        torch.testing.assert_close(leaf.grad, wanted.grad, atol=1e-4 * float(largest), rtol=0)


@pytest.mark.parametrize("family", tiny_models.FAMILIES)
def test_no_weight_ever_gets_a_gradient(engine_of, family):
    engine = engine_of(family)
    key_LHND, value_LHND = random_prefix(engine, 3)
    log_probs = engine.target_log_probs(ROWS, key_LHND, value_LHND)
    assert log_probs.requires_grad
    log_probs.sum().backward()
    weights = dict(engine.module.named_parameters())
    assert weights
    assert [name for name, weight in weights.items() if weight.requires_grad or weight.grad is not None] == []
    assert not engine.module.training
    assert not engine.target_log_probs(ROWS).requires_grad


def test_what_was_read_can_be_trained(engine_of):
    engine = engine_of("llama")
    key_LHND, value_LHND = (tensor.requires_grad_() for tensor in engine.read(text_ids(engine, 6)))
    engine.target_log_probs(ROWS, key_LHND, value_LHND).sum().backward()
    assert key_LHND.grad.abs().max() > 0 and value_LHND.grad.abs().max() > 0


def test_bfloat16_follows_float32(engine_of, reference_of):
    engine, module = engine_of("llama", dtype="bfloat16"), reference_of("llama")
    assert engine.dtype == torch.bfloat16
    ours, theirs = random_prefix(engine, 6), random_prefix(engine, 6)
    mine = engine.target_log_probs(ROWS, *ours)
    reference = torch.cat([their_log_probs(module, row, *theirs) for row in ROWS])
    # 8 bits of mantissa, hidden states of order 10 and logits of order 10: a few hundredths each, a quarter at the worst token.
    assert mine.dtype == torch.float32
    assert (mine - reference).abs().mean() < 0.06 and (mine - reference).abs().max() < 0.25
    mine.sum().backward()
    reference.sum().backward()
    for leaf, wanted in zip(ours, theirs, strict=True):
        assert leaf.grad.dtype == torch.float32
        assert torch.cosine_similarity(leaf.grad.flatten(), wanted.grad.flatten(), dim=0) > 0.99


def test_long_rows_take_the_fused_kernel_and_give_the_same(engine_of):
    engine = engine_of("llama", max_position_embeddings=4096)
    ids = text_ids(engine, 60) * 36
    row = Row(prompt=ids[:2100], targets=((5, 6, 7), (8,)))
    key_LHND, value_LHND = random_prefix(engine, 5)
    with torch.no_grad():
        fused = engine.target_log_probs([row], key_LHND, value_LHND)
    kept = engine.target_log_probs([row], key_LHND, value_LHND)
    assert kept.requires_grad
    torch.testing.assert_close(fused, kept.detach(), atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize(("family", "config"), FAMILIES)
def test_attention_to_a_prefix(engine_of, reference_of, family, config):
    engine, module = engine_of(family, **config), reference_of(family, **config)
    key_LHND, value_LHND = (tensor.detach() for tensor in random_prefix(engine, 5))
    rows = [Row(prompt=row.prompt, targets=()) for row in ROWS]
    wanted = torch.zeros(key_LHND.shape[:3])
    for row in rows:
        cache = DynamicCache()
        for layer, (key, value) in enumerate(zip(key_LHND, value_LHND, strict=True)):
            cache.update(key[None], value[None], layer)
        with torch.no_grad():
            seen = module(torch.tensor([row.prompt]), past_key_values=cache, use_cache=True, output_attentions=True).attentions
        for layer, weights_BHTS in enumerate(seen):
            wanted[layer] += weights_BHTS[0, ..., :5].sum(1).unflatten(0, (key_LHND.shape[1], -1)).sum(1)
    torch.testing.assert_close(engine.prefix_attention(rows, key_LHND, value_LHND), wanted, atol=TOLERANCE, rtol=1e-4)


@pytest.mark.parametrize("family", tiny_models.FAMILIES)
@pytest.mark.parametrize("with_prefix", [False, True])
def test_label_scores_are_sums_of_log_probs(engine_of, reference_of, prefix_of, conversations, family, with_prefix):
    engine, module = engine_of(family), reference_of(family)
    labels = ("billing", "the city centre", "yes")
    start = (Message(role="user", content="Which queue?"), Message(role="assistant", content="billing"))
    asked = [conversation for conversation in conversations if conversation[0].role == "user"]
    done: list[int] = []
    scores = engine.score_labels(asked, labels, prefix=prefix_of(engine, start) if with_prefix else None, progress=done.append)
    assert sum(done) == len(asked)
    for conversation, row in zip(asked, scores, strict=True):
        prompt = engine.render((*start, *conversation) if with_prefix else conversation)
        for label, score in zip(labels, row, strict=True):
            answer = engine.answer_ids(label)
            assert answer[-1] in engine.stop_ids
            with torch.no_grad():
                naive = their_log_probs(module, Row(prompt=prompt, targets=(answer,))).sum()
            assert score == pytest.approx(float(naive), abs=TOLERANCE * len(answer))


def test_batches_keep_to_their_limit(engine_of):
    engine = engine_of("llama")
    groups = engine.batches(ROWS, most_tokens=40)
    assert sorted(index for group in groups for index in group) == [0, 1, 2]
    assert groups[0] == [2]


def test_rows_that_cannot_be_computed(engine_of):
    engine = engine_of("gpt2")
    key_LHND, value_LHND = random_prefix(engine, 10)
    fits = Row(prompt=(5,) * 500, targets=((6, 7, 8),))
    assert engine.target_log_probs([fits], key_LHND, value_LHND).shape == (3,)
    with pytest.raises(WindowError, match=r"10 prefix positions .* make 513; the window .* is 512"):
        engine.target_log_probs([Row(prompt=(5,) * 501, targets=((6, 7, 8),))], key_LHND, value_LHND)
    with pytest.raises(WindowError, match="prompt is empty"):
        engine.target_log_probs([ROWS[0], Row(prompt=(), targets=((6,),))], key_LHND, value_LHND)
    with pytest.raises(WindowError, match="513 tokens"):
        engine.read((5,) * 513)


def test_int8_weights_answer_nearly_the_same_and_take_the_same_prefixes(engine_of, folder_of, conversations):
    exact, small = engine_of("llama"), load(str(folder_of("llama")), dtype="float32", device="cpu", weights="int8")
    assert small.fingerprint == exact.fingerprint
    row = Row(prompt=exact.render(conversations[0]), targets=(exact.answer_ids("billing"),))
    gap = (exact.target_log_probs([row]) - small.target_log_probs([row])).abs().max()
    assert 0 < gap < 0.5
    with pytest.raises(ModelError, match="int8"):
        load(str(folder_of("llama")), weights="int4")
