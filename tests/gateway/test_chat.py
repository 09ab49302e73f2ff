"""Conversations through OpenAI's own client, whole and streamed."""

from __future__ import annotations

import asyncio
from typing import Any

import openai
import pytest

HELLO = [{"role": "user", "content": "hello there friend"}]


def test_an_answer(client: Any):
    answer = client.chat.completions.create(model="echo", messages=HELLO)
    choice = answer.choices[0]
    assert (choice.message.role, choice.message.content, choice.finish_reason) == ("assistant", "hello there friend", "stop")
    assert answer.id.startswith("chatcmpl-") and answer.object == "chat.completion" and answer.model == "echo"
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (3, 3, 6)
    assert choice.logprobs is None


@pytest.mark.parametrize(
    ("model", "begins", "positions"),
    [
        ("support", "[support] ", 5),
        ("support@prod", "[support] ", 3),
        ("support@v1", "[support] ", 3),
        ("support+anna", "[support+anna] ", 7),
    ],
)
def test_the_model_names_the_prefix(client: Any, model: str, begins: str, positions: int):
    answer = client.chat.completions.create(model=f"echo:{model}", messages=HELLO)
    assert answer.choices[0].message.content == f"{begins}hello there friend"
    assert answer.model == f"echo:{model}"
    assert answer.usage.prompt_tokens == 3 and answer.usage.prompt_tokens_details.prefix_positions == positions


def test_a_stream_is_the_answer_in_pieces(client: Any):
    chunks = list(client.chat.completions.create(model="echo", messages=HELLO, stream=True, stream_options={"include_usage": True}))
    assert chunks[0].choices[0].delta.role == "assistant"
    texts = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices and chunk.choices[0].delta.content]
    assert texts == ["hello", " there", " friend"]
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "stop"
    assert chunks[-1].choices == [] and chunks[-1].usage.total_tokens == 6
    assert {chunk.usage for chunk in chunks[:-1]} == {None}
    assert len({chunk.id for chunk in chunks}) == 1


def test_a_stream_without_usage_has_no_such_field(http: Any):
    body = {"model": "echo", "messages": HELLO, "stream": True}
    text = http.post("/v1/chat/completions", json=body).text
    assert text.endswith("data: [DONE]\n\n") and "usage" not in text


def test_several_answers(client: Any):
    answer = client.chat.completions.create(model="echo", messages=HELLO, n=3, seed=1)
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    assert {choice.message.content for choice in answer.choices} == {"hello there friend"}
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (3, 9)
    streamed: dict[int, str] = {}
    for chunk in client.chat.completions.create(model="echo", messages=HELLO, n=3, stream=True):
        choice = chunk.choices[0]
        streamed[choice.index] = streamed.get(choice.index, "") + (choice.delta.content or "")
    assert streamed == dict.fromkeys(range(3), "hello there friend")


def test_logprobs(client: Any):
    options: dict[str, Any] = {"model": "echo", "messages": [{"role": "user", "content": "née two"}], "logprobs": True, "top_logprobs": 2}
    entries = client.chat.completions.create(**options).choices[0].logprobs.content
    assert [entry.token for entry in entries] == ["née", " two"]
    assert entries[0].logprob == 0 and bytes(entries[0].bytes) == "née".encode()
    assert [other.token for other in entries[0].top_logprobs] == ["née", "née."]
    streamed = [chunk.choices[0].logprobs for chunk in client.chat.completions.create(**options, stream=True)]
    assert [entry for logprobs in streamed if logprobs for entry in logprobs.content] == entries


@pytest.mark.parametrize(
    ("options", "text", "reason"),
    [
        ({"max_tokens": 2}, "hello there", "length"),
        ({"max_completion_tokens": 1}, "hello", "length"),
        ({"stop": "friend"}, "hello there ", "stop"),
        ({"stop": ["x", "there"]}, "hello ", "stop"),
        ({"extra_body": {"ignore_eos": True}, "max_tokens": 5}, "hello there friend hello there", "length"),
        ({"extra_body": {"guided_choice": ["there", "x"]}}, "there", "stop"),
        ({"extra_body": {"guided_regex": "hello there friend"}}, "hello there friend", "stop"),
        ({"response_format": {"type": "json_object"}}, '{"echo": "hello there friend"}', "stop"),
        ({"response_format": {"type": "text"}}, "hello there friend", "stop"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}], "tool_choice": "none"}, "hello there friend", "stop"),
        ({"user": "u", "metadata": {"a": "b"}, "store": True, "service_tier": "auto"}, "hello there friend", "stop"),
        ({"parallel_tool_calls": False}, "hello there friend", "stop"),
        (
            {"temperature": 0, "top_p": 0.5, "seed": -1, "presence_penalty": 1, "frequency_penalty": -1, "logit_bias": {"5": 1},
             "extra_body": {"top_k": -1, "min_p": 0.1, "repetition_penalty": 1.1}},
            "hello there friend",
            "stop",
        ),
    ],
)  # fmt: skip
def test_options(client: Any, options: dict[str, Any], text: str, reason: str):
    for stream in (False, True):
        answer = client.chat.completions.create(model="echo", messages=HELLO, stream=stream, **options)
        if stream:
            choices = [chunk.choices[0] for chunk in answer]
            found = "".join(choice.delta.content or "" for choice in choices), choices[-1].finish_reason
        else:
            found = answer.choices[0].message.content, answer.choices[0].finish_reason
        assert found == (text, reason)


def test_turns_of_every_kind(client: Any):
    first = client.chat.completions.create(model="echo", messages=HELLO).choices[0].message
    turns = [
        {"role": "developer", "content": "be brief"},
        *HELLO,
        first,
        {"role": "user", "content": [{"type": "text", "text": "and "}, {"type": "text", "text": "now"}]},
    ]
    answer = client.chat.completions.create(model="echo", messages=turns)
    assert answer.choices[0].message.content == "and now" and answer.usage.prompt_tokens == 2 + 3 + 3 + 2


@pytest.mark.parametrize(
    ("change", "param", "words"),
    [
        ({"messages": []}, "messages", "is empty"),
        ({"messages": [{"role": "assistant", "content": "x"}]}, "messages[0].role", "must end with the user's turn"),
        ({"messages": [{"role": "user"}]}, "messages[0].content", "no content"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].role", "Invalid enum value"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages[0].content[0].type", "image_url"),
        ({"temperature": 3}, "temperature", "<= 2"),
        ({"temperature": "hot"}, "temperature", "float"),
        ({"n": 0}, "n", ">= 1"),
        ({"n": 129}, "n", "<= 128"),
        ({"top_p": 0}, "top_p", "> 0"),
        ({"max_tokens": 1, "max_completion_tokens": 2}, "max_completion_tokens", "differ"),
        ({"stop": [""]}, "stop[0]", "length >= 1"),
        ({"top_logprobs": 3}, "top_logprobs", "needs"),
        ({"tools": [{}]}, "tools", "calls no tools"),
        ({"tool_choice": "required"}, "tool_choice", "calls no tools"),
        ({"functions": []}, "functions", "not a field"),
        ({"messages": [{"role": "user", "content": "x", "odd": 1}]}, "messages[0].odd", "not a field"),
        ({"logit_bias": {"a": 1}}, "logit_bias", "token ids"),
        ({"guided_regex": "a", "guided_choice": ["a"]}, "guided_regex", "cannot hold at once"),
        ({"response_format": {"type": "xml"}}, "response_format.type", "xml"),
        ({"guided_regex": "("}, None, "cannot be read"),
        ({"guided_json": "{"}, None, "no JSON"),
        ({"max_tokens": 5000}, None, "the window"),
    ],
)  # fmt: skip
def test_what_cannot_be_asked_names_its_field(http: Any, change: dict[str, Any], param: str | None, words: str):
    answer = http.post("/v1/chat/completions", json={"model": "echo", "messages": HELLO, **change})
    error = answer.json()["error"]
    assert answer.status_code == 400, error
    assert error["param"] == param and words in error["message"] and error["type"] == "invalid_request_error"


def test_the_clients_own_error_classes(client: Any):
    with pytest.raises(openai.NotFoundError) as unknown:
        client.chat.completions.create(model="echo:suport", messages=HELLO)
    assert unknown.value.code == "model_not_found" and "Did you mean `echo:support`?" in unknown.value.message
    with pytest.raises(openai.BadRequestError) as long:
        client.chat.completions.create(model="echo", messages=[{"role": "user", "content": "word " * 5000}])
    assert long.value.code == "context_length_exceeded"


def test_without_a_length_the_answer_takes_what_fits(start: Any):
    words = "word " * 90
    with start(window=200).client() as client:
        answer = client.chat.completions.create(
            model="echo", messages=[{"role": "user", "content": words}], extra_body={"ignore_eos": True}
        )
    assert answer.usage.completion_tokens == 110 and answer.choices[0].finish_reason == "length"


def test_a_full_queue_is_429(start: Any, wait_until: Any):
    server = start("echo-50ms", max_rows=1, queue=1)
    with server.client() as client:
        streams = []
        for expected in (1, 2):
            streams.append(client.chat.completions.create(model="echo", messages=[{"role": "user", "content": "w " * 400}], stream=True))
            wait_until(lambda expected=expected: server.engine.load().running + server.engine.load().waiting == expected)
        with pytest.raises(openai.RateLimitError) as busy:
            client.chat.completions.create(model="echo", messages=HELLO)
        assert busy.value.response.headers["retry-after"] == "1"
        with pytest.raises(openai.RateLimitError):
            client.chat.completions.create(model="echo", messages=HELLO, n=2)
        for stream in streams:
            stream.close()
    wait_until(lambda: server.engine.load().running + server.engine.load().waiting == 0)


def test_a_client_that_leaves_frees_its_slots(start: Any, wait_until: Any):
    server = start("echo-20ms")
    with server.client() as client:
        stream = client.chat.completions.create(model="echo", messages=[{"role": "user", "content": "w " * 1000}], n=2, stream=True)
        assert next(iter(stream)).choices[0].delta.role == "assistant"
        wait_until(lambda: server.engine.load().running == 2)
        stream.close()
        wait_until(lambda: server.engine.load().running == 0)
        assert server.engine.load().completion_tokens < 2000
        with pytest.raises(openai.APITimeoutError):
            client.with_options(timeout=0.3).chat.completions.create(model="echo", messages=[{"role": "user", "content": "w " * 1000}])
        wait_until(lambda: server.engine.load().running + server.engine.load().waiting == 0)
    assert server.app.state.service.traffic.in_flight == 0


def test_many_at_once_through_the_async_client(start: Any):
    server = start("echo-1ms", max_rows=4)
    models = ["echo", "echo:support", "echo:anna", "echo:ben"]

    async def ask(client: openai.AsyncOpenAI, number: int) -> str:
        messages: Any = [{"role": "user", "content": f"word {number}"}]
        if number % 2:
            stream = await client.chat.completions.create(model=models[number % 4], messages=messages, stream=True)
            return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])
        answer = await client.chat.completions.create(model=models[number % 4], messages=messages)
        return answer.choices[0].message.content or ""

    async def everybody() -> list[str]:
        async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
            return await asyncio.gather(*(ask(client, number) for number in range(24)))

    starts = ["", "[support] ", "[anna] ", "[ben] "]
    assert asyncio.run(everybody()) == [f"{starts[number % 4]}word {number}" for number in range(24)]
