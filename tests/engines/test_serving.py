"""The embedded engine with many callers: mixes of prefixes, full queues, callers that go, files that change."""

from __future__ import annotations

import os
import threading
import time

import pytest
import torch

from foreword.engine import Request, Serves
from foreword.engines._serving import Serving
from foreword.errors import ConfigError, Overloaded, PrefixFileError, PrefixMismatch, ServingError, WindowError
from foreword.prefix.artifact import Prefix
from foreword.prefix.operations import compose
from foreword.types import Message, Sampling

PATIENCE = 60
LENGTHS = (1, 2, 3, 5, 8, 13, 16, 17, 21, 30, 32, 33, 40, 48, 55, 64)


class Caller:
    """Collects the pieces of one answer and can wait for the last."""

    def __init__(self):
        self.pieces, self._ended = [], threading.Event()

    def __call__(self, delta):
        self.pieces.append(delta)
        if delta.finish_reason is not None:
            assert not self._ended.is_set(), "an answer ends once"
            self._ended.set()

    def wait(self):
        assert self._ended.wait(PATIENCE), "the answer never ended"
        return self

    @property
    def tokens(self):
        return [token for piece in self.pieces for token in piece.token_ids]

    @property
    def text(self):
        return "".join(piece.text for piece in self.pieces)

    @property
    def reason(self):
        return self.pieces[-1].finish_reason


def random_prefix(engine, positions, seed, name="p"):
    geometry = engine.geometry
    shape = (2, geometry.layers, geometry.kv_heads, positions, geometry.head_dim)
    key_LHND, value_LHND = torch.randn(shape, generator=torch.Generator().manual_seed(seed)).unbind()
    return Prefix.make(
        name=name,
        kind="learned",
        key_LHND=key_LHND,
        value_LHND=value_LHND,
        fingerprint=engine.fingerprint,
        geometry=geometry,
        prompt_format="full",
    )


@pytest.fixture
def serve(engine_of):
    """`serve("llama", max_rows=4)`: a serving engine that is closed afterwards."""
    opened: list[Serving] = []

    def start(family="llama", *, config=None, **options):
        opened.append(engine_of(family, **(config or {})).serve(**options))
        return opened[-1]

    yield start
    for serving in opened:
        serving.close()


@pytest.fixture
def files(engine_of, tmp_path):
    """`files("llama")`: one prefix file of each length."""

    def make(family="llama", config=None):
        engine, made = engine_of(family, **(config or {})), []
        for number, positions in enumerate(LENGTHS):
            made.append(tmp_path / f"{family}-{number}.safetensors")
            random_prefix(engine, positions, number).save(made[-1])
        return made

    return make


def request(text="Hello", prefix=(), **sampling):
    settings = {"max_new_tokens": 8, "ignore_end": True} | sampling
    return Request(conversation=(Message(role="user", content=text),), prefix=tuple(prefix), sampling=Sampling(**settings))


def ask(serving, *arguments, **fields):
    caller = Caller()
    serving.submit(request(*arguments, **fields), caller)
    return caller


@pytest.mark.parametrize(("family", "config"), [("llama", {}), ("qwen3", {}), ("gemma3_text", {"sliding_window": 8}), ("gpt_neox", {})])
def test_64_requests_over_16_prefixes_get_what_each_gets_alone(engine_of, serve, files, family, config):
    engine, paths = engine_of(family, **config), files(family, config)
    serving = serve(family, config=config, max_rows=24, step_tokens=50)
    assert isinstance(serving, Serves)
    wanted = [(f"question {number} " * (1 + number % 4), number % 17) for number in range(64)]
    callers = [ask(serving, text, () if which == 16 else (paths[which],)) for text, which in wanted]
    for (text, which), caller in zip(wanted, callers, strict=True):
        prefix = None if which == 16 else Prefix.load(paths[which])
        alone = engine.generate([request(text).conversation], prefix=prefix, sampling=request().sampling)[0]
        caller.wait()
        assert caller.tokens == list(alone.token_ids) and caller.text == alone.text
        assert caller.pieces[-1].usage == alone.usage and caller.reason == "length"
    assert len({tuple(caller.tokens) for caller in callers}) > 16, "prefixes and questions should matter"
    load = serving.load()
    assert load.running == load.waiting == 0 and load.resident_prefixes == 16
    assert load.prefix_hits + load.prefix_misses == sum(which != 16 for _, which in wanted)


def test_drawn_answers_do_not_depend_on_the_company(serve):
    drawn = {"temperature": 1.0, "top_p": 0.9, "seed": 7, "frequency_penalty": 0.5, "logprobs": 2}
    serving = serve(max_rows=8)
    alone = ask(serving, "draw", **drawn).wait()
    others = [ask(serving, f"other {number}", temperature=1.0, seed=number) for number in range(6)]
    again = ask(serving, "draw", **drawn).wait()
    for other in others:
        other.wait()
    assert again.tokens == alone.tokens
    assert len(again.pieces[0].logprobs[0].top) == 2
    assert ask(serving, "draw", **(drawn | {"seed": 8})).wait().tokens != alone.tokens


def test_several_files_are_composed(engine_of, serve, files):
    engine, paths = engine_of("llama"), files()
    together = compose([Prefix.load(paths[4]), Prefix.load(paths[6])], "a+b")
    expected = engine.generate([request("x").conversation], prefix=together, sampling=request().sampling)[0]
    caller = ask(serve(), "x", (paths[4], paths[6])).wait()
    assert caller.tokens == list(expected.token_ids)
    assert caller.pieces[-1].usage.prefix_positions == together.positions


def test_a_full_queue_refuses_and_says_when_to_come_again(serve):
    serving = serve(max_rows=1, queue=3)
    callers = [ask(serving, f"{number}", max_new_tokens=200) for number in range(4)]
    with pytest.raises(Overloaded, match="3 requests wait") as caught:
        ask(serving, "one too many")
    assert caught.value.retry_after > 0
    for caller in callers[1:]:
        assert not caller.pieces
    load = serving.load()
    assert load.running + load.waiting == 4


def test_ten_thousand_requests_leave_a_bounded_queue(serve):
    serving = serve(max_rows=2, queue=50)
    accepted, refused = [], 0
    for number in range(10_000):
        try:
            accepted.append(ask(serving, str(number), max_new_tokens=1))
        except Overloaded:
            refused += 1
    for caller in accepted:
        caller.wait()
    assert refused and len(accepted) + refused == 10_000
    assert serving.load().waiting == 0


def test_giving_up_frees_the_slot(serve):
    serving = serve(max_rows=1, queue=5)
    long, waiting = Caller(), Caller()
    ticket = serving.submit(request("a", max_new_tokens=100), long)
    second = serving.submit(request("b", max_new_tokens=100), waiting)
    while not long.pieces:
        time.sleep(0.001)
    second.cancel()
    ticket.cancel()
    ticket.cancel()
    assert long.wait().reason == "cancelled" and waiting.wait().reason == "cancelled"
    assert not waiting.tokens and 0 < len(long.tokens) < 100
    assert ask(serving, "c").wait().reason == "length"


def test_a_file_replaced_while_in_use_changes_later_requests_only(engine_of, serve, tmp_path):
    engine, path = engine_of("llama"), tmp_path / "p.safetensors"
    random_prefix(engine, 16, 1).save(path)
    serving = serve(max_rows=4)
    before = ask(serving, "x", (path,), max_new_tokens=120)
    while not before.pieces:
        time.sleep(0.001)
    random_prefix(engine, 16, 2).save(tmp_path / "new.safetensors")
    os.replace(tmp_path / "new.safetensors", path)
    after = ask(serving, "x", (path,), max_new_tokens=120).wait()
    path.unlink()
    before.wait()
    sampling = Sampling(max_new_tokens=120, ignore_end=True)
    for caller, seed in ((before, 1), (after, 2)):
        alone = engine.generate([request("x").conversation], prefix=random_prefix(engine, 16, seed), sampling=sampling)[0]
        assert caller.tokens == list(alone.token_ids)


def test_what_cannot_be_served_is_refused_at_once(engine_of, serve, files, tmp_path):
    paths = files()
    serving = serve()
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(paths[5].read_bytes()[:-10])
    other = tmp_path / "other.safetensors"
    random_prefix(engine_of("qwen3"), 8, 0).save(other)
    with pytest.raises(PrefixFileError):
        ask(serving, "x", (broken,))
    with pytest.raises(PrefixFileError, match=r"gone\.safetensors"):
        ask(serving, "x", (tmp_path / "gone.safetensors",))
    with pytest.raises(PrefixMismatch):
        ask(serving, "x", (other,))
    with pytest.raises(WindowError):
        ask(serving, "x", (paths[-1],), max_new_tokens=serving.window - 64)
    with pytest.raises(WindowError, match="empty"):
        serving.submit(Request(text=""), Caller())
    with pytest.raises(ConfigError):
        ask(serving, "x", temperature=-1)
    assert serving.load().waiting == serving.load().running == 0
    assert ask(serving, "x").wait().reason == "length"


def test_memory_stays_within_the_bound(serve, files):
    paths = files()
    serving = serve(resident_bytes=40_000)
    for path in paths * 2:
        ask(serving, "x", (path,), max_new_tokens=1).wait()
    assert 0 < serving.load().resident_bytes <= 40_000
    serving.keep((paths[0],), pinned=True)
    assert (paths[0],) in serving.resident()
    serving.let_go((paths[0],))
    assert (paths[0],) not in serving.resident()


def test_closing_drains_then_cancels(serve):
    serving = serve(max_rows=1)
    quick = ask(serving, "a", max_new_tokens=3)
    serving.close(drain_seconds=PATIENCE)
    assert quick.reason == "length"
    with pytest.raises(ServingError, match="closing"):
        ask(serving, "b")
    hasty = serve(max_rows=1)
    callers = [ask(hasty, "a", max_new_tokens=400), ask(hasty, "b", max_new_tokens=400)]
    hasty.close()
    assert [caller.wait().reason for caller in callers] == ["cancelled", "cancelled"]


def test_a_plain_text_is_gone_on_from(engine_of, serve):
    engine, caller = engine_of("llama"), Caller()
    serving = serve()
    ticket = serving.submit(Request(text="The river is", sampling=Sampling(max_new_tokens=4, ignore_end=True)), caller)
    assert ticket.prompt_tokens == len(engine.encode("The river is"))
    module, tokens = engine.module, list(engine.encode("The river is"))
    for _ in range(4):
        tokens.append(_next_token(module, tokens))
    assert caller.wait().tokens == tokens[-4:]


def _next_token(module, tokens):
    with torch.no_grad():
        return int(module(input_ids=torch.tensor([tokens]), use_cache=False).logits[0, -1].argmax())


def test_stop_strings_end_an_answer(engine_of, serve):
    serving = serve()
    whole = ask(serving, "stop", max_new_tokens=30).wait().text
    stop = whole[5:8]
    assert ask(serving, "stop", max_new_tokens=30, stop=(stop,)).wait().text == whole.partition(stop)[0]
