"""The model in this process, asked along a path."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import openai
import pytest
from starlette.applications import Starlette

from echo_inside import SETTINGS, echo_inside
from foreword.gateway.embedded import Embedded
from foreword.gateway.passage import Call, Event, Target, TargetError, Versioned
from foreword.gateway.path_requests import chat_of, text_of
from foreword.gateway.path_settings import ModelSettings, build_settings
from foreword.gateway.tenants import EVERYBODY, Tenant, parse_keys
from foreword.prefix.store import PrefixStore
from foreword.prompting.store import PromptStore
from foreword.prompting.template import build
from paths import BARE, charges_of, serving_path

HI = [{"role": "user", "content": "one two three"}]


@pytest.fixture
def store(tmp_path: Path, prefix_named: Callable[..., Any]) -> PrefixStore:
    store = PrefixStore(tmp_path / "prefixes")
    for name in ("support", "support", "anna"):
        store.publish(prefix_named(name))
    return store


@pytest.fixture
def inside(store: PrefixStore) -> Iterator[Starlette]:
    with echo_inside(store) as inside:
        yield inside


def target_of(inside: Starlette, **settings: Any) -> Embedded:
    return Embedded("small", ModelSettings.model_validate({**SETTINGS, **settings}), inside, names=inside.state.service.names)


def call_of(model: str = "small", *, tenant: Tenant = EVERYBODY, seconds: float = 30.0, **fields: Any) -> Call:
    request = chat_of(msgspec.json.encode({"model": model, "messages": HI, **fields}))
    return Call(request=request, model=model, tenant=tenant, request_id="r1", seconds=seconds)


async def all_of(events: AsyncIterator[Event]) -> list[Event]:
    return [event async for event in events]


def test_it_is_a_target_that_knows_its_prefixes(inside: Starlette) -> None:
    target: Target = target_of(inside)
    assert isinstance(target, Versioned) and target.name == "small"
    anna = parse_keys("some-key-1 anna anna", source="x").tenant("Bearer some-key-1")
    assert target.version("small:support", EVERYBODY) == "support@v2"
    assert target.version("small:support+anna", EVERYBODY) == "support@v2+anna@v1"
    # What there is not, and what a tenant must not know of, stays what it was called.
    assert target.version("small:none", EVERYBODY) == "none" and target.version("small:support", anna) == "support"


def test_an_answer_comes_whole_with_what_it_took(inside: Starlette) -> None:
    reply = asyncio.run(target_of(inside).complete(call_of("small:support")))
    assert reply.text == "[support] one two three" and reply.model == "small:support" and reply.finish_reason == "stop"
    took = reply.consumed
    assert took is not None and took.machine_seconds is not None and took.machine_seconds > 0
    # A prefix's positions are read from a cache.
    assert took.cache_read_tokens == 3 and took.output_tokens == 4


def test_an_answer_comes_in_pieces_that_cost_the_same(inside: Starlette) -> None:
    target = target_of(inside)
    events = asyncio.run(all_of(target.stream(call_of("small:support", stream=True))))
    assert "".join(event.text for event in events) == "[support] one two three"
    whole = asyncio.run(target.complete(call_of("small:support")))
    assert events[-1].consumed is not None and whole.consumed is not None
    for count in ("input_tokens", "cache_read_tokens", "output_tokens"):
        assert getattr(events[-1].consumed, count) == getattr(whole.consumed, count)
    # Nobody asked for the usage, so its chunk is read and not passed on.
    assert events[-1].data == b"" and all(event.data.startswith(b"data: ") and event.data.endswith(b"\n\n") for event in events[:-1])
    asked = asyncio.run(all_of(target.stream(call_of(stream=True, stream_options={"include_usage": True}))))
    assert b'"usage"' in asked[-1].data


@pytest.mark.parametrize("stream", [False, True])
def test_what_it_does_not_take_is_refused_in_the_paths_words(inside: Starlette, stream: bool) -> None:
    async def ask(call: Call) -> None:
        target = target_of(inside)
        await (all_of(target.stream(call)) if stream else target.complete(call))

    for call, status, param, words in (
        (call_of("small:none"), 404, "model", "`small:none`"),
        (call_of(top_k=2**40), 400, "top_k", "top_k"),
        (call_of(tools=[{"type": "function", "function": {"name": "f"}}]), 400, "tools", "tools"),
        (call_of(messages=[{"role": "user", "content": "word " * 5000}]), 400, None, "window"),
    ):
        with pytest.raises(TargetError) as caught:
            asyncio.run(ask(call))
        error = caught.value
        assert (error.status, error.http_status, error.param) == ("refused", status, param)
        assert error.refusal is not None and words in error.refusal.decode() and b"echo-model" not in error.refusal


def test_a_tenant_reaches_no_prefix_but_its_own(inside: Starlette) -> None:
    anna = parse_keys("some-key-1 anna anna", source="x").tenant("Bearer some-key-1")
    target = target_of(inside)
    assert asyncio.run(target.complete(call_of("small:anna", tenant=anna))).text.startswith("[anna]")
    with pytest.raises(TargetError) as caught:
        asyncio.run(target.complete(call_of("small:support", tenant=anna)))
    assert caught.value.http_status == 404


@pytest.mark.parametrize("stream", [False, True])
def test_one_that_takes_too_long_is_given_up(store: PrefixStore, stream: bool) -> None:
    async def ask(inside: Starlette) -> TargetError:
        target, call = target_of(inside), call_of(stream=stream, seconds=0.2, messages=[{"role": "user", "content": "word " * 500}])
        with pytest.raises(TargetError) as caught:
            await (all_of(target.stream(call)) if stream else target.complete(call))
        end = time.monotonic() + 30
        while inside.state.service.engine.load().running:
            assert time.monotonic() < end, "it goes on for nobody"
            await asyncio.sleep(0.01)
        return caught.value

    with echo_inside(store, name="echo-20ms") as inside:
        error = asyncio.run(ask(inside))
    assert (error.status, error.begun) == ("timeout", stream)


def test_a_stream_that_is_closed_is_given_up(store: PrefixStore) -> None:
    async def ask(inside: Starlette) -> None:
        events = target_of(inside).stream(call_of(stream=True, messages=[{"role": "user", "content": "word " * 1000}]))
        await anext(events)
        await events.aclose()  # type: ignore[attr-defined]
        end = time.monotonic() + 30
        while inside.state.service.engine.load().running:
            assert time.monotonic() < end, "it goes on for nobody"
            await asyncio.sleep(0.01)

    with echo_inside(store, name="echo-5ms") as inside:
        asyncio.run(ask(inside))


def test_one_that_fails_in_the_middle_says_so(store: PrefixStore) -> None:
    with echo_inside(store, fails_at="two") as inside:
        target = target_of(inside)
        with pytest.raises(TargetError) as caught:
            asyncio.run(all_of(target.stream(call_of(stream=True))))
        assert (caught.value.status, caught.value.begun) == ("broken", True)
        with pytest.raises(TargetError) as caught:
            asyncio.run(target.complete(call_of()))
        assert caught.value.status == "unavailable" and "two" not in str(caught.value)


def test_one_that_is_busy_says_so(store: PrefixStore) -> None:
    from foreword.engines.echo import load
    from foreword.gateway.app import build

    async def ask(inside: Starlette) -> list[Any]:
        target = target_of(inside)
        calls = [target.complete(call_of(messages=[{"role": "user", "content": "word " * 50}])) for _ in range(6)]
        return await asyncio.gather(*calls, return_exceptions=True)

    serving = load("echo-5ms").serve(max_rows=1, queue=1)
    try:
        got = asyncio.run(ask(build(serving, base="echo-model", store=store, watched=False)))
    finally:
        serving.close()
    refused = [one for one in got if isinstance(one, TargetError)]
    assert refused and len(refused) < 6
    assert all((one.status, one.http_status) == ("unavailable", 429) and one.retry_after for one in refused)


def test_texts_go_on_from_where_they_are(inside: Starlette) -> None:
    settings = build_settings({"models": {"small": SETTINGS}}, source="x")
    raw = msgspec.json.encode({"model": "small:support", "prompt": "one two three", "max_tokens": 3, "stream": False})
    call = Call(request=text_of(raw, settings), model="small:support", tenant=EVERYBODY, request_id="r1", seconds=30)
    reply = asyncio.run(target_of(inside).complete(call))
    assert reply.text == "[support] one two" and reply.finish_reason == "length"
    events = asyncio.run(all_of(target_of(inside).stream(call)))
    assert "".join(event.text for event in events) == reply.text and events[-1].consumed is not None


def test_a_model_may_have_a_prompt_before_every_request(tmp_path: Path) -> None:
    prompts = PromptStore(tmp_path / "prompts")
    prompts.publish(build({"name": "kind", "messages": [{"role": "system", "content": "Be kind."}]}, source="x"))
    models = {"small": SETTINGS, "kind": {"like": "small", "prompt": "kind", "price": {"machine_hour": "7.2"}}}
    settings = {"models": models, "stages": list(BARE)}
    with echo_inside(tmp_path / "prefixes", prompts=prompts) as inside, serving_path(settings, inside=inside) as path:
        client = path.client()
        usages = [client.chat.completions.create(model=name, messages=HI).usage for name in ("small", "kind")]
        assert usages[1] is not None and usages[0] is not None and usages[1].prompt_tokens > usages[0].prompt_tokens
        for entry, price in zip(path.entries(), (0.001, 0.002), strict=True):
            seconds, amount = charges_of(entry)["machine-second"]
            assert amount is not None and float(amount) == pytest.approx(seconds * price)
        with pytest.raises(openai.NotFoundError):
            client.chat.completions.create(model="kind:none", messages=HI)
