"""Calls of another server over a real socket: what is sent, what is read of its answers, and every way in which it may fail."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any, TypeVar

import msgspec
import pytest

from foreword.cost.rates import Consumed
from foreword.gateway import upstream as module
from foreword.gateway.passage import Call, Event, TargetError
from foreword.gateway.path_settings import ModelSettings
from foreword.gateway.path_wire import REQUEST, UsageIn
from foreword.gateway.tenants import EVERYBODY
from foreword.gateway.upstream import Upstream, consumed_of, without_secrets
from upstreams import (
    RICH_USAGE,
    Behaviour,
    FakeUpstream,
    answer,
    cut,
    drop,
    endless,
    error_event,
    garbage,
    half,
    hang,
    huge,
    no_event_end,
    plain,
    redirect,
    refuse,
    refused_url,
    upstream,
)

KEY = "sk-test-0123456789abcdef"
T = TypeVar("T")


def call(*, seconds: float = 30.0, model: str = "big", **fields: Any) -> Call:
    body = {"model": "auto", "messages": [{"role": "user", "content": "A secret question."}], **fields}
    return Call(request=REQUEST.decode(msgspec.json.encode(body)), model=model, tenant=EVERYBODY, request_id="r1", seconds=seconds)


def with_target(url: str, do: Callable[[Upstream], Awaitable[T]], **settings: Any) -> T:
    async def main() -> T:
        target = Upstream("big", ModelSettings.model_validate({"url": url, "model": "gpt-big", **settings}), key=KEY)
        try:
            return await do(target)
        finally:
            await target.close()

    return asyncio.run(main())


async def streamed(target: Upstream, the_call: Call) -> list[Event]:
    return [event async for event in target.stream(the_call)]


def failure(url: str, *, stream: bool = False, settings: dict[str, Any] | None = None, **fields: Any) -> TargetError:
    """The error of a call, and before it the number of events that came, on the error as `came`."""

    async def do(target: Upstream) -> TargetError:
        came = 0
        try:
            if stream:
                async for _ in target.stream(call(**fields)):
                    came += 1
            else:
                await target.complete(call(**fields))
        except TargetError as error:
            error.came = came  # type: ignore[attr-defined]
            return error
        raise AssertionError("it did not fail")

    return with_target(url, do, **(settings or {}))


def failure_of(behaviour: Behaviour, **options: Any) -> TargetError:
    with upstream(behaviour) as fake:
        return failure(fake.url, **options)


# What is sent.


def test_what_is_sent_is_the_models_own_business_and_nothing_else() -> None:
    with upstream() as fake:
        fields = {"user": "anna", "metadata": {"task": "x"}, "store": True, "service_tier": "auto", "temperature": 0.5}
        with_target(fake.url, lambda target: target.complete(call(model="big:support@prod", **fields)))
    seen = fake.seen[0]
    assert seen.path == "/v1/chat/completions"
    assert seen.body == {
        "model": "gpt-big:support@prod",
        "messages": [{"role": "user", "content": "A secret question."}],
        "temperature": 0.5,
    }
    assert seen.headers["authorization"] == f"Bearer {KEY}"


def test_a_stream_always_asks_for_its_usage() -> None:
    with upstream() as fake:
        with_target(fake.url, lambda target: streamed(target, call(stream=True)))
    assert (fake.seen[0].body["stream"], fake.seen[0].body["stream_options"]) == (True, {"include_usage": True})


def test_connections_are_used_again_after_whole_and_streamed_answers() -> None:
    async def do(target: Upstream) -> None:
        for _ in range(3):
            await target.complete(call())
            await streamed(target, call(stream=True))

    with upstream() as fake:
        with_target(fake.url, do)
    assert {seen.connection for seen in fake.seen} == {1}


# What is read.


def test_a_whole_answer_goes_through_as_it_is() -> None:
    with upstream(answer("Two words.", usage=RICH_USAGE, finish_reason="length")) as fake:
        reply = with_target(fake.url, lambda target: target.complete(call()))
    assert (reply.text, reply.finish_reason, reply.tool_calls) == ("Two words.", "length", False)
    assert msgspec.json.decode(reply.body)["usage"] == RICH_USAGE
    assert reply.consumed == Consumed(input_tokens=1200, cache_read_tokens=1000, output_tokens=80, reasoning_tokens=30)


@pytest.mark.parametrize(
    "options",
    [{}, {"newline": "\r\n"}, {"comments": True}, {"packet": 1}, {"packet": 7, "newline": "\r\n", "comments": True}, {"done": False}],
    ids=str,
)
def test_a_stream_is_the_same_however_it_travels(options: dict[str, Any]) -> None:
    with upstream(answer("Two or three words.", usage=RICH_USAGE, **options)) as fake:
        events = with_target(fake.url, lambda target: streamed(target, call(stream=True)))
    assert "".join(event.text for event in events) == "Two or three words."
    assert [event.finish_reason for event in events if event.finish_reason] == ["stop"]
    consumed = [event.consumed for event in events if event.consumed is not None]
    assert consumed == [Consumed(input_tokens=1200, cache_read_tokens=1000, output_tokens=80, reasoning_tokens=30)]
    for event in events:
        assert event.data == b"" or event.data.endswith(b"\n\n")


def test_events_are_passed_on_as_they_come() -> None:
    async def do(target: Upstream) -> str:
        async with aclosing(target.stream(call(stream=True))) as events:  # type: ignore[type-var]
            said = [(await anext(events)).text for _ in range(3)]
        return "".join(said)

    # The fake says three words and then nothing for an hour: a stream that held anything back would never get here.
    with upstream(endless(words=3)) as fake:
        assert with_target(fake.url, do) == "word0 word1 word2 "


def test_a_usage_that_nobody_asked_for_is_read_and_not_passed_on() -> None:
    with upstream(answer()) as fake:
        events = with_target(fake.url, lambda target: streamed(target, call(stream=True)))
        asked = with_target(fake.url, lambda target: streamed(target, call(stream=True, stream_options={"include_usage": True})))
    assert b'"usage"' not in b"".join(event.data for event in events)
    assert b'"usage"' in b"".join(event.data for event in asked)


def test_tool_calls_are_seen_whole_and_streamed() -> None:
    calls = [{"id": "c1", "type": "function", "function": {"name": "look_up", "arguments": "{}"}}]
    with upstream(answer(tool_calls=calls, finish_reason="tool_calls")) as fake:
        reply = with_target(fake.url, lambda target: target.complete(call()))
        events = with_target(fake.url, lambda target: streamed(target, call(stream=True)))
    assert reply.tool_calls
    assert any(event.tool_calls for event in events)


def test_an_answer_without_a_usage_is_estimated() -> None:
    with upstream(answer("x" * 40, usage=None)) as fake:
        reply = with_target(fake.url, lambda target: target.complete(call()))
    assert reply.consumed is not None
    assert reply.consumed.estimated
    assert reply.consumed.output_tokens == 10


def test_an_own_machine_is_paid_by_its_time() -> None:
    with upstream() as fake:
        settings = {"price": {"machine_hour": "1"}}
        reply = with_target(fake.url, lambda target: target.complete(call()), **settings)
        events = with_target(fake.url, lambda target: streamed(target, call(stream=True)), **settings)
    assert reply.consumed is not None
    assert reply.consumed.machine_seconds
    assert [bool(event.consumed.machine_seconds) for event in events if event.consumed is not None] == [True]


@pytest.mark.parametrize(
    ("usage", "consumed"),
    [
        ({"prompt_tokens": 9, "completion_tokens": 4}, Consumed(input_tokens=9, output_tokens=4)),
        ({"prompt_tokens": 9, "completion_tokens": None}, Consumed(input_tokens=9)),
        # Gemini's endpoint: reasoning is in the total alone, or in the details alone.
        (
            {"prompt_tokens": 20, "completion_tokens": 151, "total_tokens": 553},
            Consumed(input_tokens=20, output_tokens=533, reasoning_tokens=382),
        ),
        (
            {"prompt_tokens": 21, "completion_tokens": 0, "total_tokens": 81, "completion_tokens_details": {"reasoning_tokens": 60}},
            Consumed(input_tokens=21, output_tokens=60, reasoning_tokens=60),
        ),
        # Anthropic's names, as servers in front of its models tell them.
        (
            {"prompt_tokens": 100, "completion_tokens": 5, "cache_read_input_tokens": 60, "cache_creation_input_tokens": 30},
            Consumed(input_tokens=100, cache_read_tokens=60, cache_write_tokens=30, output_tokens=5),
        ),
        # The cache beside the prompt, and in the total.
        (
            {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 75, "cache_read_input_tokens": 60},
            Consumed(input_tokens=70, cache_read_tokens=60, output_tokens=5),
        ),
        # DeepSeek's, Moonshot's, OpenRouter's.
        (
            {"prompt_tokens": 100, "completion_tokens": 5, "prompt_cache_hit_tokens": 64},
            Consumed(input_tokens=100, cache_read_tokens=64, output_tokens=5),
        ),
        (
            {"prompt_tokens": 100, "completion_tokens": 5, "cached_tokens": 64},
            Consumed(input_tokens=100, cache_read_tokens=64, output_tokens=5),
        ),
        (
            {"prompt_tokens": 100, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": 60, "cache_write_tokens": 30}},
            Consumed(input_tokens=100, cache_read_tokens=60, cache_write_tokens=30, output_tokens=5),
        ),
        # A prefix's positions, which Foreword's own servers tell.
        (
            {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15, "prompt_tokens_details": {"prefix_positions": 32}},
            Consumed(input_tokens=42, cache_read_tokens=32, output_tokens=5),
        ),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_what_servers_say_that_they_took(usage: dict[str, Any], consumed: Consumed) -> None:
    assert consumed_of(msgspec.convert(usage, UsageIn)) == consumed


# How it fails.


@pytest.mark.parametrize("stream", [False, True])
def test_nobody_listens(stream: bool) -> None:
    error = failure(refused_url(), stream=stream)
    assert (error.status, error.http_status, error.begun) == ("unavailable", None, False)
    assert "127.0.0.1" not in str(error)


@pytest.mark.parametrize("stream", [False, True])
def test_it_hangs_up_without_a_word(stream: bool) -> None:
    assert failure_of(drop(), stream=stream).status == "unavailable"


@pytest.mark.parametrize("stream", [False, True])
def test_it_never_answers(stream: bool) -> None:
    with upstream(hang()) as fake:
        error = failure(fake.url, stream=stream, seconds=0.1)
        fake.wait_for_disconnect()
    assert (error.status, error.begun) == ("timeout", False)


def test_its_first_piece_has_a_time_of_its_own() -> None:
    for behaviour in (hang(), answer(wait=0.0, gap=3600, comments=True, packet=5)):
        error = failure_of(behaviour, stream=True, seconds=3600.0, settings={"first_token_seconds": 0.1})
        assert (error.status, error.begun, error.came) == ("timeout", False, 0)  # type: ignore[attr-defined]


def test_it_stops_in_the_middle_of_a_stream() -> None:
    with upstream(endless(words=2)) as fake:
        error = failure(fake.url, stream=True, seconds=0.3)
        fake.wait_for_disconnect()
    assert (error.status, error.begun, error.came) == ("timeout", True, 2)  # type: ignore[attr-defined]


def test_a_stream_that_never_ends_ends_with_its_time() -> None:
    with upstream(endless(gap=0.001)) as fake:
        error = failure(fake.url, stream=True, seconds=0.3)
        fake.wait_for_disconnect()
    assert (error.status, error.begun) == ("timeout", True)


def test_closing_a_stream_hangs_up() -> None:
    async def do(target: Upstream) -> None:
        async with aclosing(target.stream(call(stream=True))) as events:  # type: ignore[type-var]
            await anext(events)

    with upstream(endless()) as fake:
        with_target(fake.url, do)
        fake.wait_for_disconnect()


@pytest.mark.parametrize("status", [500, 502, 503, 504, 408, 429, 529])
@pytest.mark.parametrize("stream", [False, True])
def test_it_cannot_answer_now(status: int, stream: bool) -> None:
    error = failure_of(refuse(status, "An inner secret."), stream=stream)
    assert error.status == ("timeout" if status in (408, 504) else "unavailable")
    assert (error.http_status, error.retry_after, error.refusal) == (status, None, None)
    assert "secret" not in str(error)


def test_it_says_when_to_come_again() -> None:
    later = format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True)
    told = [failure_of(refuse(429, headers={"retry-after": given})).retry_after for given in ("7", later, "soon", "-3", "", "9" * 400)]
    assert told[0] == 7.0
    assert told[1] is not None
    assert 3000 < told[1] <= 3600
    assert told[2:5] == [None, None, None]
    assert told[5] == 999999999.0


@pytest.mark.parametrize("status", [400, 404, 413, 422])
@pytest.mark.parametrize("stream", [False, True])
def test_what_is_wrong_with_the_request_is_told_in_its_own_words(status: int, stream: bool) -> None:
    error = failure_of(refuse(status, "This model takes 4096 tokens."), stream=stream)
    assert (error.status, error.http_status, error.refusal) == ("refused", status, b"This model takes 4096 tokens.")


def test_its_code_and_field_are_told_where_they_are_no_more_than_that() -> None:
    body = {"error": {"message": "Too long.", "code": "context_length_exceeded", "param": "messages"}}
    error = failure_of(plain(400, msgspec.json.encode(body)))
    assert (error.code, error.param) == ("context_length_exceeded", "messages")
    body = {"error": {"message": "Too long.", "code": 400, "param": "see https://inner.example/x"}}
    error = failure_of(plain(400, msgspec.json.encode(body)))
    assert (error.code, error.param) == (None, None)


def test_neither_addresses_nor_keys_are_told() -> None:
    words = f"Your key {KEY} is fine; see https://inner.example/v1?k=1 or /srv/models/big.bin; sk-proj-abcdefghijklmnop; Bearer abc."
    error = failure_of(refuse(400, words))
    assert error.refusal is not None
    for hidden in (KEY, "inner.example", "/srv/models", "sk-proj", "abc."):
        assert hidden not in error.refusal.decode()
    assert error.refusal.startswith(b"Your key")
    assert without_secrets("It takes 4096 tokens; use top-k.", None) == "It takes 4096 tokens; use top-k."


@pytest.mark.parametrize("status", [401, 402, 403, 405, 501])
def test_that_its_key_is_refused_is_this_servers_business(status: int, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        error = failure_of(refuse(status, "Incorrect API key provided."))
    assert (error.status, error.refusal) == ("unavailable", None)
    assert str(status) not in str(error)
    assert "key" not in str(error).lower()
    assert f"HTTP {status}" in caplog.text
    assert KEY not in caplog.text


@pytest.mark.parametrize("stream", [False, True])
def test_redirects_are_not_followed(stream: bool) -> None:
    with upstream() as elsewhere, upstream(redirect(f"{elsewhere.url}/chat/completions")) as fake:
        error = failure(fake.url, stream=stream)
        assert error.status == "unavailable"
        assert elsewhere.seen == []


@pytest.mark.parametrize("stream", [False, True])
def test_an_error_page_instead_of_an_error_is_not_passed_on(stream: bool) -> None:
    error = failure_of(plain(404, b"<html>nginx</html>"), stream=stream)
    assert (error.status, error.refusal) == ("unavailable", None)


@pytest.mark.parametrize("body", [b"", b"null", b"{}", b'{"choices": []}', b'{"choices": [{"message": 3}]}', b"\xff\xfe", b"[" * 100_000])
def test_an_answer_that_is_none(body: bytes) -> None:
    error = failure_of(plain(200, body))
    assert (error.status, error.http_status) == ("broken", 200)


def test_a_connection_that_breaks_in_the_middle_of_a_whole_answer() -> None:
    error = failure_of(cut())
    assert (error.status, error.begun) == ("broken", False)


@pytest.mark.parametrize(
    "behaviour", [cut(events=2), half(events=2), half(events=2, tail=b'data: {"cho'), garbage(after=2), error_event(after=2)]
)
def test_a_stream_that_breaks_in_the_middle(behaviour: Behaviour) -> None:
    error = failure_of(behaviour, stream=True)
    assert (error.status, error.begun, error.came) == ("broken", True, 2)  # type: ignore[attr-defined]
    assert "engine stopped" not in str(error)


@pytest.mark.parametrize("behaviour", [cut(events=0), half(events=0), garbage(), error_event(after=0)])
def test_a_stream_that_breaks_before_it_begins(behaviour: Behaviour) -> None:
    error = failure_of(behaviour, stream=True)
    assert (error.status, error.begun) == ("broken", False)


def test_an_answer_without_measure() -> None:
    with upstream(huge(module.MOST_BYTES + 1)) as fake:
        assert failure(fake.url).status == "broken"
        fake.script(no_event_end())
        assert failure(fake.url, stream=True).status == "broken"


def test_logs_hold_neither_keys_nor_prompts_nor_addresses(caplog: pytest.LogCaptureFixture) -> None:
    behaviours: list[Behaviour] = [refuse(401), refuse(500), drop(), garbage(), cut()]
    with caplog.at_level(logging.DEBUG), upstream(*behaviours) as fake:
        host = fake.url.split("/")[2]
        for stream in (False, True):
            fake.script(*behaviours)
            for _ in behaviours:
                failure(fake.url, stream=stream)
        assert isinstance(fake, FakeUpstream)
    told = [record.getMessage() for record in caplog.records if record.name.startswith("foreword")]
    assert told
    for hidden in (KEY, "secret question", host):
        assert not any(hidden in line for line in told)
