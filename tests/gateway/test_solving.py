"""Strategies as models through OpenAI's own client, whole and streamed. The echo engine repeats the user, which makes votes easy to win."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import openai
import pytest
from prometheus_client.parser import text_string_to_metric_families

from foreword.gateway.strategies import Offer
from foreword.gateway.tenants import parse_keys
from foreword.prefix.artifact import Prefix
from foreword.prefix.header import StandsFor
from foreword.prefix.stands_for import messages_hash
from foreword.prompting.strategy import Budget
from foreword.types import Message

HELLO: Any = [{"role": "user", "content": "hello there friend"}]
FOUR: Any = [{"role": "user", "content": "Answer: 4"}]
LONG: Any = [{"role": "user", "content": "w " * 1000}]
VOTE = "strategy:self-consistency(echo, n={n}, adaptive=false, batch={n}, think=false)"


def figures(server: Any) -> dict[tuple[str, ...], float]:
    with server.http() as http:
        families = text_string_to_metric_families(http.get("/metrics").text)
    return {(sample.name, *sample.labels.values()): sample.value for family in families for sample in family.samples}


def idle(server: Any) -> bool:
    load = server.engine.load()
    return load.running + load.waiting == 0


def test_an_answer(client: Any):
    raw = client.chat.completions.with_raw_response.create(model="strategy:zero-shot(echo)", messages=HELLO)
    answer = raw.parse()
    choice = answer.choices[0]
    assert (choice.message.role, choice.message.content, choice.finish_reason) == ("assistant", "hello there friend", "stop")
    assert answer.id.startswith("chatcmpl-") and answer.object == "chat.completion" and answer.model == "strategy:zero-shot(echo)"
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (3, 3, 6)
    told = {name: value for name, value in raw.headers.items() if name.startswith("foreword-")}
    assert told == {"foreword-strategy": "zero-shot", "foreword-calls": "1", "foreword-status": "answered"}
    assert answer.strategy["status"] == "answered" and answer.strategy["final"] == "hello there friend"


@pytest.mark.parametrize(
    ("model", "begins", "positions"),
    [("support", "[support] ", 5), ("support@prod", "[support] ", 3), ("support+anna", "[support+anna] ", 7)],
)
def test_the_model_in_it_names_the_prefix(client: Any, model: str, begins: str, positions: int):
    answer = client.chat.completions.create(model=f"strategy:zero-shot(echo:{model}, instruction=Be kind)", messages=HELLO)
    assert answer.choices[0].message.content == f"{begins}hello there friend"
    assert answer.usage.prompt_tokens == 2 + 3 and answer.usage.prompt_tokens_details.prefix_positions == positions
    assert answer.strategy["name"] == "zero-shot(instruction=Be kind)"


def test_all_calls_are_counted_and_paid(client: Any):
    raw = client.chat.completions.with_raw_response.create(model=VOTE.format(n=5), messages=FOUR)
    answer = raw.parse()
    assert answer.choices[0].message.content == "Answer: 4" and answer.strategy["final"] == "4"
    assert answer.strategy["candidates"] == ["4"] and answer.strategy["calls"] == 5 and raw.headers["foreword-calls"] == "5"
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (10, 10)


def test_a_stream_is_the_answer_in_one_piece(client: Any):
    options: Any = {"model": VOTE.format(n=3), "messages": FOUR, "stream": True}
    raw = client.chat.completions.with_raw_response.create(**options, stream_options={"include_usage": True})
    chunks = list(raw.parse())
    assert raw.headers["foreword-strategy"].startswith("self-consistency(n=3") and "foreword-calls" not in raw.headers
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [chunk.choices[0].delta.content for chunk in chunks[1:-1]] == ["Answer: 4", None]
    assert chunks[-2].choices[0].finish_reason == "stop" and chunks[-2].strategy["calls"] == 3
    assert chunks[-1].choices == [] and chunks[-1].usage.total_tokens == 12
    assert {chunk.usage for chunk in chunks[:-1]} == {None} and len({chunk.id for chunk in chunks}) == 1
    assert all("usage" not in chunk.model_fields_set for chunk in client.chat.completions.create(**options))


def test_a_stream_is_kept_alive_while_the_strategy_works(start: Any):
    server = start("echo-20ms", strategies=Offer(keep_alive_seconds=0.02))
    with server.http() as http, server.client() as client:
        options: Any = {"model": "strategy:zero-shot(echo)", "messages": [{"role": "user", "content": "w " * 20}], "stream": True}
        text = http.post("/v1/chat/completions", json=options).text
        assert text.count(": keep-alive\n\n") > 1 and text.endswith("data: [DONE]\n\n")
        chunks = list(client.chat.completions.create(**options))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == " ".join("w" * 20)


def test_the_request_says_how_calls_are_drawn(client: Any):
    answer = client.chat.completions.create(model="strategy:zero-shot(echo)", messages=HELLO, max_tokens=2)
    assert (answer.choices[0].message.content, answer.choices[0].finish_reason) == ("hello there", "length")
    options: Any = {"temperature": 0.5, "seed": 3, "top_p": 0.9, "presence_penalty": 1, "user": "u"}
    answer = client.chat.completions.create(model="strategy:zero-shot(echo)", messages=HELLO, stop="friend", **options)
    assert (answer.choices[0].message.content, answer.choices[0].finish_reason) == ("hello there ", "stop")


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("model", "change", "status", "param", "words"),
    [
        ("strategy:nope(echo)", {}, 404, "model", "No `nope` among strategies. Known:"),
        ("strategy:zero-shot(other)", {}, 404, "model", "No model is named `other` here"),
        ("strategy:zero-shot(echo:suport)", {}, 404, "model", "Did you mean `echo:support`?"),
        ("strategy:zero-shot(strategy:zero-shot(echo))", {}, 404, "model", "No model is named `strategy:zero-shot(echo)`"),
        ("strategy:zero-shot", {}, 400, "model", "must name one model"),
        ("strategy:zero-shot(echo, echo:anna)", {}, 400, "model", "it names 2"),
        ("strategy:zero-shot(echo", {}, 400, "model", "is no strategy"),
        ("strategy:", {}, 400, "model", "is no strategy"),
        ("strategy:zero-shot(echo, odd=1)", {}, 400, "model", "`odd`: Extra inputs are not permitted. Its settings: instruction."),
        ("strategy:zero-shot(echo, key=1)", {}, 400, "model", "`key`: Extra inputs"),
        ("strategy:zero-shot(echo, instruction=3)", {}, 400, "model", "`instruction`"),
        ("strategy:react(echo, most_problems=20000)", {}, 400, "model", "`most_problems` of strategy `react` may be 10,000 at most"),
        ("strategy:few-shot(echo)", {}, 400, None, "no examples"),
        ("strategy:best-of-n(echo, verifier=nope)", {}, 400, None, "No `nope` among verifiers"),
        ("strategy:react(echo)", {}, 400, None, "calls tools, and there are none"),
        ("strategy:zero-shot(echo)", {"n": 2}, 400, "n", "one answer"),
        ("strategy:zero-shot(echo)", {"logprobs": True}, 400, "logprobs", "several calls"),
        ("strategy:zero-shot(echo)", {"ignore_eos": True}, 400, "ignore_eos", "Leave `ignore_eos` out"),
        ("strategy:zero-shot(echo)", {"guided_choice": ["a"]}, 400, "guided_choice", "Leave `guided_choice` out"),
        ("strategy:zero-shot(echo)", {"response_format": {"type": "json_object"}}, 400, "response_format", "says itself"),
        ("strategy:zero-shot(echo)", {"tools": [{}]}, 400, "tools", "calls no tools"),
        ("strategy:zero-shot(echo)", {"messages": []}, 400, "messages", "is empty"),
        ("strategy:zero-shot(echo)", {"messages": [{"role": "system", "content": "x"}]}, 400, "messages[0].role", "must end with the user"),
        ("strategy:zero-shot(echo)", {"max_tokens": 5000}, 400, None, "the window"),
        ("strategy:zero-shot(echo)", {"messages": [{"role": "user", "content": "w " * 5000}]}, 400, None, "the window"),
    ],
)  # fmt: skip
def test_what_cannot_be_asked(http: Any, model: str, change: dict[str, Any], stream: bool, status: int, param: str | None, words: str):
    answer = http.post("/v1/chat/completions", json={"model": model, "messages": HELLO, "stream": stream, **change})
    error = answer.json()["error"]
    assert answer.status_code == status, error
    assert error["param"] == param and words in error["message"] and error["type"] == "invalid_request_error"


def test_the_other_endpoint_points_here(http: Any):
    answer = http.post("/v1/completions", json={"model": "strategy:zero-shot(echo)", "prompt": "x"})
    assert answer.status_code == 400 and "/v1/chat/completions" in answer.json()["error"]["message"]


def test_a_spent_budget_gives_what_there_is(start: Any):
    server = start(strategies=Offer(budget=Budget(calls=3)))
    with server.client() as client:
        raw = client.chat.completions.with_raw_response.create(model=VOTE.format(n=10), messages=FOUR)
        answer = raw.parse()
        assert (answer.choices[0].message.content, answer.choices[0].finish_reason) == ("Answer: 4", "length")
        assert (raw.headers["foreword-calls"], raw.headers["foreword-status"]) == ("3", "budget")
        assert raw.headers["foreword-reason"] == answer.strategy["reason"] == "The budget of 3 calls is spent."
    found = figures(server)
    assert found["foreword_strategies_total", "budget", "self-consistency"] == 1
    assert found["foreword_strategy_calls_total", "self-consistency"] == 3 and found["foreword_tokens_total", "out", "none"] == 6


@pytest.mark.parametrize(("budget", "words"), [(Budget(calls=0), "0 calls"), (Budget(calls=9, seconds=0.1), "0.1 seconds")])
def test_a_budget_that_is_spent_before_there_is_anything(start: Any, wait_until: Any, budget: Budget, words: str):
    server = start("echo-20ms", strategies=Offer(budget=budget))
    with server.client() as client:
        with pytest.raises(openai.UnprocessableEntityError) as spent:
            client.chat.completions.create(model="strategy:zero-shot(echo)", messages=LONG)
        assert spent.value.code == "budget_spent" and words in spent.value.message
        assert spent.value.response.headers["foreword-status"] == "budget"
        with pytest.raises(openai.APIError, match=words):
            list(client.chat.completions.create(model="strategy:zero-shot(echo)", messages=LONG, stream=True))
    wait_until(lambda: idle(server))


def test_a_strategy_that_fails(client: Any):
    """No sample of a vote has an answer; the first one is what there is, and of an empty echo there is nothing."""
    raw = client.chat.completions.with_raw_response.create(model=VOTE.format(n=3), messages=HELLO)
    assert raw.parse().choices[0].message.content == "hello there friend" and raw.headers["foreword-status"] == "failed"
    assert "None of 3 samples" in raw.headers["foreword-reason"]
    with pytest.raises(openai.UnprocessableEntityError, match="None of 3 samples") as failed:
        client.chat.completions.create(model=VOTE.format(n=3), messages=[{"role": "user", "content": ""}])
    assert failed.value.code == "strategy_failed" and failed.value.response.headers["foreword-calls"] == "3"


def test_an_engine_that_fails(start: Any):
    with start(fails_at="friend").client() as client, pytest.raises(openai.InternalServerError) as failed:
        client.chat.completions.create(model="strategy:zero-shot(echo)", messages=HELLO)
    assert failed.value.status_code == 503 and failed.value.code == "unavailable"


def test_tenants_see_only_their_own_prefixes(start: Any):
    server = start(keys=parse_keys("key-of-anna anna anna support\nkey-of-boss boss", source="test"))

    def ask(key: str, model: str) -> str:
        with server.client(key) as client:
            return client.chat.completions.create(model=model, messages=HELLO).choices[0].message.content

    assert ask("key-of-anna", "strategy:zero-shot(echo:support+anna)") == "[support+anna] hello there friend"
    assert ask("key-of-boss", "strategy:zero-shot(echo:ben)") == "[ben] hello there friend"
    for model in ("echo:ben", "echo:support+ben", "echo:nobody"):
        with pytest.raises(openai.NotFoundError) as unseen:
            ask("key-of-anna", f"strategy:zero-shot({model})")
        assert "Did you mean `echo:ben" not in unseen.value.message
    with server.client("key-of-anna") as client:
        assert client.models.retrieve("strategy:zero-shot(echo:anna)").parent == "echo"
        with pytest.raises(openai.NotFoundError):
            client.models.retrieve("strategy:zero-shot(echo:ben)")
    with pytest.raises(openai.AuthenticationError):
        ask("nobody's-key", "strategy:zero-shot(echo)")


def test_a_server_without_strategies(start: Any):
    with start(strategies=None).client() as client:
        assert not any(card.id.startswith("strategy:") for card in client.models.list())
        with pytest.raises(openai.NotFoundError, match="offers no strategies"):
            client.chat.completions.create(model="strategy:zero-shot(echo)", messages=HELLO)
        with pytest.raises(openai.NotFoundError):
            client.models.retrieve("strategy:zero-shot(echo)")


def test_a_client_that_leaves_cancels_all_calls(start: Any, wait_until: Any):
    server = start("echo-20ms")
    with server.client() as client:
        stream = client.chat.completions.create(model=VOTE.format(n=8), messages=LONG, stream=True)
        assert next(iter(stream)).choices[0].delta.role == "assistant"
        wait_until(lambda: server.engine.load().running == 8)
        stream.close()
        wait_until(lambda: idle(server))
        with pytest.raises(openai.APITimeoutError):
            client.with_options(timeout=0.3).chat.completions.create(model=VOTE.format(n=8), messages=LONG)
        wait_until(lambda: idle(server))
    wait_until(lambda: figures(server).get(("foreword_strategies_total", "cancelled", "self-consistency")) == 2)
    assert server.engine.load().completion_tokens < 8000
    wait_until(lambda: server.app.state.service.traffic.in_flight == 0)


@pytest.mark.parametrize("stream", [False, True])
def test_a_server_that_stops_ends_strategies(start: Any, wait_until: Any, stream: bool):
    server = start("echo-20ms", drain_seconds=0.0)

    def stop() -> None:
        wait_until(lambda: server.engine.load().running == 8)
        server.ask_to_stop()

    stopping = threading.Thread(target=stop)
    stopping.start()
    with server.client() as client, pytest.raises(openai.APIError, match="stopped before this answer was complete"):
        list(client.chat.completions.create(model=VOTE.format(n=8), messages=LONG, stream=stream))
    stopping.join()
    wait_until(lambda: idle(server))


def test_a_busy_engine_is_waited_for(start: Any, wait_until: Any):
    server = start("echo-20ms", max_rows=1, queue=0)
    with server.client() as client:
        stream = client.chat.completions.create(model="echo", messages=[{"role": "user", "content": "w " * 15}], stream=True)
        wait_until(lambda: server.engine.load().running == 1)
        answer = client.chat.completions.create(model="strategy:zero-shot(echo)", messages=HELLO)
        assert answer.choices[0].message.content == "hello there friend"
        list(stream)


def test_too_many_strategies_at_once(start: Any, wait_until: Any):
    server = start("echo-20ms", strategies=Offer(at_once=1))
    with server.client() as client:
        stream = client.chat.completions.create(model="strategy:zero-shot(echo)", messages=LONG, stream=True)
        next(iter(stream))
        with pytest.raises(openai.RateLimitError) as busy:
            client.chat.completions.create(model="strategy:zero-shot(echo)", messages=HELLO)
        assert busy.value.response.headers["retry-after"] == "5"
        assert client.chat.completions.create(model="echo", messages=HELLO).choices[0].message.content == "hello there friend"
        stream.close()
        wait_until(lambda: idle(server))
        assert client.chat.completions.create(model="strategy:zero-shot(echo)", messages=HELLO).usage.total_tokens == 6


def test_sixty_four_at_once(start: Any):
    server = start("echo-1ms", max_rows=8, queue=1000)

    async def ask(client: openai.AsyncOpenAI, number: int) -> str:
        messages: Any = [{"role": "user", "content": f"Answer: {number}"}]
        if number % 2:
            stream = await client.chat.completions.create(model=VOTE.format(n=4), messages=messages, stream=True)
            return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])
        answer = await client.chat.completions.create(model=VOTE.format(n=4), messages=messages)
        return answer.choices[0].message.content or ""

    async def everybody() -> list[str]:
        async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
            return await asyncio.gather(*(ask(client, number) for number in range(64)))

    assert asyncio.run(everybody()) == [f"Answer: {number}" for number in range(64)]
    assert figures(server)["foreword_strategy_calls_total", "self-consistency"] == 256


def test_prefixes_stand_in_for_a_strategys_calls(start: Any, store: Any, prefix_named: Any, wait_until: Any):
    rules = Message(role="system", content="be brief and kind")
    plain = prefix_named("rules", positions=7)
    store.publish(
        Prefix.make(
            name="rules",
            kind="text",
            key_LHND=plain.key_LHND,
            value_LHND=plain.value_LHND,
            fingerprint=plain.header.fingerprint,
            geometry=plain.header.geometry,
            prompt_format="continuation",
            stands_for=StandsFor(messages=messages_hash([rules]), count=1),
        )
    )
    messages: Any = [{"role": rules.role, "content": rules.content}, *FOUR]
    with start().client() as client:

        def ask() -> Any:
            return client.chat.completions.create(model=VOTE.format(n=3), messages=messages)

        # The first calls may come before the store was read.
        wait_until(lambda: ask().choices[0].message.content == "[rules] Answer: 4")
        usage = ask().usage
    assert (usage.prompt_tokens, usage.prompt_tokens_details.cached_tokens, usage.prompt_tokens_details.prefix_positions) == (27, 21, 0)
