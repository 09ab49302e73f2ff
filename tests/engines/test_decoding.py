"""Generation, against transformers' own `generate`, and its independence of batch and order."""

from __future__ import annotations

import json
import random
import shutil

import pytest
import torch

import tiny_models
from foreword.engines.transformers import load
from foreword.errors import ConfigError, ModelError, WindowError
from foreword.prefix.operations import quantize, shift
from foreword.types import Message, Sampling

FAMILIES = [(family, {}) for family in tiny_models.FAMILIES] + [("gemma3_text", {"sliding_window": 8})]
GREEDY = Sampling(max_new_tokens=24)
DRAWN = Sampling(max_new_tokens=16, temperature=1.3, top_p=0.95, top_k=60, seed=5)


def their_answer(module, prompt, stop_ids, most=GREEDY.max_new_tokens):
    """Token ids that transformers generates greedily, without the stop token that ended them."""
    tokens = torch.tensor([prompt])
    with torch.no_grad():
        whole = module.generate(
            tokens,
            attention_mask=torch.ones_like(tokens),
            do_sample=False,
            max_new_tokens=most,
            eos_token_id=sorted(stop_ids),
            pad_token_id=0,
        )
    answer = whole[0, len(prompt) :].tolist()
    return tuple(answer[:-1] if answer[-1] in stop_ids else answer)


@pytest.mark.parametrize(("family", "config"), FAMILIES)
def test_greedy_is_transformers_generate(engine_of, reference_of, conversations, family, config):
    engine, module = engine_of(family, **config), reference_of(family, **config)
    theirs = [their_answer(module, engine.render(conversation), engine.stop_ids) for conversation in conversations]
    alone = [engine.generate([conversation], sampling=GREEDY)[0] for conversation in conversations]
    together = engine.generate(conversations, sampling=GREEDY)
    assert [answer.token_ids for answer in alone] == theirs
    assert [answer.token_ids for answer in together] == theirs
    assert max(map(len, theirs)) > 16 and len(set(theirs)) == len(theirs), "the models should have something to disagree about"
    for answer, conversation in zip(together, conversations, strict=True):
        ended = len(answer.token_ids) < GREEDY.max_new_tokens
        assert answer.finish_reason == ("stop" if ended else "length")
        assert answer.usage.prompt_tokens == len(engine.render(conversation))
        assert answer.usage.completion_tokens == len(answer.token_ids)
        assert answer.text == engine.tokenizer.decode(answer.token_ids, skip_special_tokens=True)


@pytest.mark.parametrize("family", tiny_models.FAMILIES)
def test_several_stop_tokens(engine_of, reference_of, folder_of, conversations, tmp_path, family):
    unstopped = [answer.token_ids for answer in engine_of(family).generate(conversations, sampling=GREEDY)]
    stops = sorted({ids[len(ids) // 2] for ids in unstopped[:3] if ids})
    folder = tmp_path / "model"
    shutil.copytree(folder_of(family), folder)
    settings = json.loads((folder / "generation_config.json").read_text())
    (folder / "generation_config.json").write_text(json.dumps({**settings, "eos_token_id": stops}))
    engine = load(str(folder), dtype="float32", device="cpu")
    assert set(stops) < engine.stop_ids
    answers = engine.generate(conversations, sampling=GREEDY)
    theirs = [their_answer(reference_of(family), engine.render(conversation), engine.stop_ids) for conversation in conversations]
    assert [answer.token_ids for answer in answers] == theirs
    assert sum(answer.finish_reason == "stop" for answer in answers) >= min(2, len(stops))
    assert len({len(answer.token_ids) for answer in answers}) > 1, "rows should end at different steps"


@pytest.mark.parametrize(("family", "config"), FAMILIES)
def test_a_prefix_answers_like_the_text_it_was_read_from(engine_of, prefix_of, conversations, family, config):
    engine = engine_of(family, **config)
    start = (
        Message(role="user", content="Which queue? name[Aromi]"),
        Message(role="assistant", content="Queue: billing. Thank you for writing to us."),
    )
    asked = [conversation for conversation in conversations if conversation[0].role == "user"]
    prefix = prefix_of(engine, start)
    with_prefix = engine.generate(asked, prefix=prefix, sampling=GREEDY)
    with_text = engine.generate([(*start, *conversation) for conversation in asked], sampling=GREEDY)
    assert [answer.token_ids for answer in with_prefix] == [answer.token_ids for answer in with_text]
    assert [answer.usage.prompt_positions for answer in with_prefix] == [answer.usage.prompt_tokens for answer in with_text]
    assert {answer.usage.prefix_positions for answer in with_prefix} == {prefix.positions}
    without = engine.generate(asked, sampling=GREEDY)
    assert [answer.token_ids for answer in with_prefix] != [answer.token_ids for answer in without]
    for conversation, answer in zip(asked, with_prefix, strict=True):
        assert "".join(engine.stream(conversation, prefix=prefix, sampling=GREEDY)) == answer.text


@pytest.mark.parametrize("family", ["llama", "gemma3_text", "gpt_neox"])
def test_a_shifted_prefix_answers_as_before(engine_of, prefix_of, conversations, family):
    engine = engine_of(family)
    prefix = prefix_of(engine, conversations[4][:2])
    moved = shift(prefix, 9)
    assert moved.header.first_position == 9 and not torch.allclose(moved.key_LHND, prefix.key_LHND, atol=0.01)
    before, after = (engine.generate(conversations[:2], prefix=each, sampling=GREEDY) for each in (prefix, moved))
    assert [answer.token_ids for answer in before] == [answer.token_ids for answer in after]


def test_an_int8_prefix_is_served(engine_of, prefix_of, conversations):
    engine = engine_of("llama")
    prefix = prefix_of(engine, conversations[4][:2])
    narrow = quantize(prefix)
    targets = (engine.answer_ids("yes"), engine.answer_ids("no"))
    exact, rounded = (engine.score_labels(conversations[:1], ["yes", "no"], prefix=each)[0] for each in (prefix, narrow))
    # Each number is off by at most 1/254 of its head's largest; a token's log-probability moves by some hundredths.
    assert exact == pytest.approx(rounded, abs=0.1 * max(map(len, targets)))
    assert exact != rounded


@pytest.mark.parametrize("family", tiny_models.FAMILIES)
def test_stream_is_generate(engine_of, conversations, family):
    engine = engine_of(family)
    for sampling in (GREEDY, DRAWN):
        for conversation in conversations:
            pieces = list(engine.stream(conversation, sampling=sampling))
            assert "".join(pieces) == engine.generate([conversation], sampling=sampling)[0].text
            assert all(pieces)


def test_stream_comes_in_pieces_and_never_half_a_character(engine_of, conversations):
    engine = engine_of("llama")
    pieces = list(engine.stream(conversations[0], sampling=Sampling(max_new_tokens=40, temperature=2.0, seed=1)))
    assert len(pieces) > 5
    # A piece that ends in a replacement character ends in bytes that no later byte made whole.
    whole = engine.generate([conversations[0]], sampling=Sampling(max_new_tokens=40, temperature=2.0, seed=1))[0].text
    assert "".join(pieces) == whole


def test_stream_leaves_the_callers_grad_mode_alone(engine_of, conversations):
    pieces = engine_of("llama").stream(conversations[0], sampling=GREEDY)
    next(pieces)
    assert torch.is_grad_enabled() and not torch.is_inference_mode_enabled()
    leaf = torch.ones(2, requires_grad=True)
    (leaf * 2).sum().backward()
    assert leaf.grad is not None
    assert list(pieces)


def test_rows_do_not_depend_on_their_order(engine_of, conversations):
    engine = engine_of("gpt2")
    order = list(range(len(conversations)))
    random.Random(3).shuffle(order)
    straight = engine.generate(conversations, sampling=GREEDY)
    shuffled = engine.generate([conversations[index] for index in order], sampling=GREEDY)
    assert [straight[index].token_ids for index in order] == [answer.token_ids for answer in shuffled]


def test_more_rows_than_one_batch(engine_of):
    engine = engine_of("qwen3")
    many = [(Message(role="user", content=f"order {number}" * (number % 5 + 1)),) for number in range(70)]
    done: list[int] = []
    answers = engine.generate(many, sampling=Sampling(max_new_tokens=4), progress=done.append)
    assert sum(done) == 70 and len(done) == 3
    for index in (0, 33, 69):
        assert answers[index].token_ids == engine.generate([many[index]], sampling=Sampling(max_new_tokens=4))[0].token_ids
    assert engine.generate([]) == []


@pytest.mark.parametrize("family", ["llama", "qwen3", "gpt_neox"])
def test_stop_strings_cut_the_answer_where_they_begin(engine_of, conversations, family):
    engine = engine_of(family)
    for conversation in conversations[:3]:
        free = engine.generate([conversation], sampling=GREEDY)[0]
        for begin in range(0, len(free.text) - 4, 3):
            stops = (free.text[begin : begin + 4], "never written")
            sampling = Sampling(max_new_tokens=GREEDY.max_new_tokens, stop=stops)
            (answer,) = engine.generate([conversation], sampling=sampling)
            assert answer.text == free.text.partition(stops[0])[0]
            assert answer.finish_reason == "stop"
            assert len(answer.token_ids) <= len(free.token_ids)
            assert "".join(engine.stream(conversation, sampling=sampling)) == answer.text


def test_the_earliest_of_several_stop_strings_counts(engine_of, conversations):
    engine = engine_of("qwen3")
    free = engine.generate([conversations[0]], sampling=GREEDY)[0].text
    late, early = free[9:12], free[4:7]
    (answer,) = engine.generate([conversations[0]], sampling=Sampling(max_new_tokens=24, stop=(late, early)))
    assert answer.text == min((free.partition(stop)[0] for stop in (late, early)), key=len)


def test_a_row_that_stops_on_a_string_leaves_the_others_alone(engine_of, conversations):
    engine = engine_of("llama")
    free = engine.generate(conversations, sampling=GREEDY)
    stop = free[0].text[5:8]
    cut = engine.generate(conversations, sampling=Sampling(max_new_tokens=GREEDY.max_new_tokens, stop=(stop,)))
    assert [answer.text for answer in cut] == [answer.text.partition(stop)[0] for answer in free]
    assert any(answer.finish_reason == "length" for answer in cut)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_drawing_depends_on_the_seed_and_not_on_neighbours(engine_of, conversations, family):
    engine = engine_of(family)
    alone = [engine.generate([conversation], sampling=DRAWN)[0].token_ids for conversation in conversations]
    assert [answer.token_ids for answer in engine.generate(conversations, sampling=DRAWN)] == alone
    assert [answer.token_ids for answer in engine.generate(conversations[::-1], sampling=DRAWN)] == alone[::-1]
    other = Sampling(max_new_tokens=16, temperature=1.3, top_p=0.95, top_k=60, seed=6)
    assert [answer.token_ids for answer in engine.generate(conversations, sampling=other)] != alone


@pytest.mark.parametrize("most", [1, 2, 7])
def test_max_new_tokens(engine_of, conversations, most):
    answers = engine_of("llama").generate(conversations, sampling=Sampling(max_new_tokens=most))
    assert {len(answer.token_ids) for answer in answers} == {most}
    assert {answer.finish_reason for answer in answers} == {"length"}


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_new_tokens": 0},
        {"max_new_tokens": -3},
        {"temperature": -0.1},
        {"temperature": float("nan")},
        {"temperature": float("inf")},
        {"top_p": 0.0},
        {"top_p": 1.5},
        {"top_k": -1},
        {"stop": ("END", "")},
    ],
)
def test_settings_that_draw_nothing_are_refused(engine_of, conversations, wrong):
    (field,) = wrong
    for answer in (engine_of("llama").generate, lambda rows, **rest: engine_of("llama").stream(rows[0], **rest)):
        with pytest.raises(ConfigError, match=field):
            answer(conversations[:1], sampling=Sampling(**wrong))


def test_the_window_holds_prefix_prompt_and_answer(engine_of, prefix_of, conversations):
    engine = engine_of("gpt2")
    prefix = prefix_of(engine, conversations[4][:2])
    prompt = engine.render(conversations[0], prompt_format="continuation")
    room = engine.window - prefix.positions - len(prompt)
    (answer,) = engine.generate(conversations[:1], prefix=prefix, sampling=Sampling(max_new_tokens=room))
    assert answer.usage.prompt_positions + len(answer.token_ids) <= engine.window
    told = rf"{prefix.positions} prefix positions, {len(prompt)} prompt tokens .* make {engine.window + 1}"
    with pytest.raises(WindowError, match=told) as refused:
        engine.generate(conversations[:1], prefix=prefix, sampling=Sampling(max_new_tokens=room + 1))
    assert refused.value.room == room
    with pytest.raises(WindowError) as refused:
        engine.generate([(Message(role="user", content="w " * engine.window),)], sampling=Sampling(max_new_tokens=1))
    assert refused.value.room == 0
    with pytest.raises(WindowError, match="max_new_tokens"):
        engine.stream(conversations[0], prefix=prefix, sampling=Sampling(max_new_tokens=room + 1))


def test_an_empty_prompt(engine_of):
    with pytest.raises(WindowError, match="empty"):
        engine_of("qwen3", chat_template=False).generate([()])
    with pytest.raises(ModelError, match="refuses the conversation"):
        engine_of("gemma3_text").generate([()])
    blank = (Message(role="user", content=""),)
    assert engine_of("llama").generate([blank], sampling=Sampling(max_new_tokens=3))[0].usage.completion_tokens <= 3


def test_a_prefix_as_long_as_the_window(engine_of, prefix_of, conversations):
    engine = engine_of("gpt_neox", max_position_embeddings=64)
    ids = engine.encode("families are welcome " * 40)[:64]
    prefix = prefix_of(engine, conversations[4][:1])
    from foreword.prefix.artifact import Prefix

    key_LHND, value_LHND = engine.read(ids)
    full = Prefix.make(
        name="full",
        kind="text",
        key_LHND=key_LHND,
        value_LHND=value_LHND,
        fingerprint=engine.fingerprint,
        geometry=engine.geometry,
        prompt_format="full",
    )
    engine.check(prefix)
    with pytest.raises(WindowError, match="64 positions"):
        engine.check(full)
