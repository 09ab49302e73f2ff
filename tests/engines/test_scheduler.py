"""Continuous batching: whatever joins, leaves or is given up, every request gets the tokens that it would get alone."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from foreword.engine import Request
from foreword.engines._resident import NO_PREFIX, PrefixTensors
from foreword.engines._scheduler import MOST_COPIED, Scheduler
from foreword.types import Message, Sampling

LENGTHS = (1, 2, 5, 17, 40)
"""Positions of the prefixes that requests choose from."""

requests = st.lists(
    st.tuples(
        st.integers(0, 4),  # how many steps after the last one it comes
        st.sampled_from([None, *range(len(LENGTHS))]),  # its prefix
        st.integers(1, 60),  # length of its prompt, in characters
        st.integers(1, 12),  # tokens wanted
        st.one_of(st.none(), st.integers(0, 10)),  # steps after which it is given up
    ),
    min_size=1,
    max_size=9,
)


def prefixes_of(engine):
    geometry, draw = engine.geometry, torch.Generator().manual_seed(0)
    made = []
    for positions in LENGTHS:
        shape = (2, geometry.layers, geometry.kv_heads, positions, geometry.head_dim)
        key_LGND, value_LGND = torch.randn(shape, generator=draw).unbind()
        made.append(PrefixTensors(key_LGND=key_LGND, value_LGND=value_LGND, positions=positions, prompt_format="full"))
    return made


def make_job(engine, prefix, text, tokens, heard):
    conversation = (Message(role="user", content=text),)
    request = Request(conversation=conversation, sampling=Sampling(max_new_tokens=tokens, ignore_end=True))
    return engine.job(request, prefix, heard.append)


def run_alone(engine, prefix, text, tokens):
    scheduler, heard = Scheduler(engine, most_rows=1, step_tokens=64), []
    scheduler.add(make_job(engine, prefix, text, tokens, heard))
    while scheduler.step():
        pass
    return heard


def check_house_keeping(scheduler):
    running = scheduler.running
    assert [job.row for job in running] == list(range(len(running))), "rows stand together, each its own"
    assert len(running) <= scheduler.most_rows
    for job in running:
        assert not job.answer.ended
        own = 0 if job.shared is not None else job.prefix.positions
        assert job.filled == own + job.read + max(0, len(job.tokens) - 1)


@pytest.mark.parametrize(("family", "config"), [("llama", {}), ("gpt2", {}), ("gemma3_text", {"sliding_window": 8})])
@settings(deadline=None, max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(wanted=requests, rows=st.integers(1, 4), step_tokens=st.sampled_from([1, 7, 500]))
def test_any_mix_gives_each_request_its_own_tokens(engine_of, family, config, wanted, rows, step_tokens):
    engine = engine_of(family, **config)
    prefixes = prefixes_of(engine)
    scheduler = Scheduler(engine, most_rows=rows, step_tokens=step_tokens)
    jobs, heard, given_up = [], [], []
    for wait, which, length, tokens, patience in wanted:
        for _ in range(wait):
            scheduler.step()
            check_house_keeping(scheduler)
        heard.append([])
        prefix = NO_PREFIX if which is None else prefixes[which]
        jobs.append(make_job(engine, prefix, ("abc déf " * 8)[:length], tokens, heard[-1]))
        given_up.append(None if patience is None else scheduler.counts.steps + patience)
        scheduler.add(jobs[-1])
    going = True
    while going:
        for job, limit in zip(jobs, given_up, strict=True):
            job.cancelled = job.cancelled or (limit is not None and scheduler.counts.steps >= limit)
        going = scheduler.step()
        check_house_keeping(scheduler)
    assert not scheduler.running and not scheduler.waiting
    for (_, which, length, tokens, _), said in zip(wanted, heard, strict=True):
        alone = run_alone(engine, NO_PREFIX if which is None else prefixes[which], ("abc déf " * 8)[:length], tokens)
        mine, theirs = ([token for delta in deltas for token in delta.token_ids] for deltas in (said, alone))
        assert [delta.finish_reason is not None for delta in said] == [False] * (len(said) - 1) + [True]
        if said[-1].finish_reason == "cancelled":
            assert mine == theirs[: len(mine)]
        else:
            assert mine == theirs and said[-1] == alone[-1]
            assert "".join(delta.text for delta in said) == "".join(delta.text for delta in alone)


def test_a_prefix_used_by_many_is_held_once(engine_of):
    engine = engine_of("llama")
    prefix = prefixes_of(engine)[3]
    scheduler = Scheduler(engine, most_rows=50, step_tokens=10_000)
    for number in range(50):
        scheduler.add(make_job(engine, prefix, f"request {number}", 3, []))
    scheduler.step()
    assert len(scheduler.running) == 50
    assert sum(job.shared is prefix for job in scheduler.running) == 49, (
        "one request has a copy in its slots, the others refer to the tensors"
    )


def test_a_long_prefix_is_never_copied(engine_of):
    engine = engine_of("llama")
    geometry = engine.geometry
    shape = (geometry.layers, geometry.kv_heads, MOST_COPIED + 1, geometry.head_dim)
    prefix = PrefixTensors(key_LGND=torch.zeros(shape), value_LGND=torch.zeros(shape), positions=MOST_COPIED + 1, prompt_format="full")
    scheduler = Scheduler(engine, most_rows=2, step_tokens=512)
    scheduler.add(make_job(engine, prefix, "x", 3, []))
    scheduler.step()
    assert scheduler.running[0].shared is prefix


def test_a_long_prompt_is_read_in_pieces_while_others_go_on(engine_of):
    engine = engine_of("llama")
    scheduler, short, long = Scheduler(engine, most_rows=4, step_tokens=33), [], []
    scheduler.add(make_job(engine, NO_PREFIX, "hi", 30, short))
    scheduler.step()
    scheduler.add(make_job(engine, NO_PREFIX, "word " * 60, 2, long))
    before = len(short)
    while not long:
        scheduler.step()
    assert len(short) - before >= 2, "the running request got a token in every step that read the long prompt"


def test_a_row_that_was_never_computed_can_move(engine_of):
    engine = engine_of("llama")
    scheduler, heard = Scheduler(engine, most_rows=24, step_tokens=33), [[] for _ in range(24)]
    for number, said in enumerate(heard):
        scheduler.add(make_job(engine, NO_PREFIX, f"request {number} " * 6, 1, said))
    while scheduler.step():
        check_house_keeping(scheduler)
    assert all(said[-1].finish_reason == "length" for said in heard)


def test_a_failed_step_ends_what_ran_and_not_what_waits(engine_of):
    engine = engine_of("llama")
    scheduler, first, second = Scheduler(engine, most_rows=1, step_tokens=64), [], []
    scheduler.add(make_job(engine, NO_PREFIX, "a", 5, first))
    scheduler.add(make_job(engine, NO_PREFIX, "b", 5, second))
    scheduler.step()
    scheduler.fail_all()
    assert first[-1].finish_reason == "error" and not second
    while scheduler.step():
        pass
    assert second[-1].finish_reason == "length"
