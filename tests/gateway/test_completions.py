"""Plain texts through OpenAI's own client."""

from __future__ import annotations

from typing import Any

import pytest


def test_an_answer(client: Any):
    answer = client.completions.create(model="echo:anna", prompt="one two")
    assert (answer.choices[0].text, answer.choices[0].finish_reason) == ("[anna] one two", "stop")
    assert answer.id.startswith("cmpl-") and answer.object == "text_completion"
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (2, 3)


def test_several_prompts_and_answers(client: Any):
    answer = client.completions.create(model="echo", prompt=["one two", "three"], n=2, best_of=2)
    assert [(choice.index, choice.text) for choice in answer.choices] == [(0, "one two"), (1, "one two"), (2, "three"), (3, "three")]
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (3, 6)


def test_logprobs(client: Any):
    options: dict[str, Any] = {"model": "echo", "prompt": "one two", "logprobs": 2}
    logprobs = client.completions.create(**options).choices[0].logprobs
    assert logprobs.tokens == ["one", " two"] and logprobs.token_logprobs == [0, 0] and logprobs.text_offset == [0, 3]
    assert [set(top) for top in logprobs.top_logprobs] == [{"one", "one."}, {" two", " two."}]
    chunks = [chunk.choices[0].logprobs for chunk in client.completions.create(**options, stream=True)]
    assert [offset for chunk in chunks if chunk for offset in chunk.text_offset] == [0, 3]


def test_a_stream(client: Any):
    options: dict[str, Any] = {"model": "echo", "prompt": "one two three", "max_tokens": 2, "stream": True}
    chunks = list(client.completions.create(**options, stream_options={"include_usage": True}))
    assert [choice.text for chunk in chunks for choice in chunk.choices] == ["one", " two"]
    assert chunks[-2].choices[0].finish_reason == "length" and chunks[-1].usage.completion_tokens == 2


def test_an_empty_text(client: Any):
    answer = client.completions.create(model="echo", prompt="")
    assert (answer.choices[0].text, answer.usage.completion_tokens) == ("", 0)
    assert [chunk.choices[0].finish_reason for chunk in client.completions.create(model="echo", prompt="", stream=True)] == ["stop"]


@pytest.mark.parametrize(
    ("change", "param", "words"),
    [
        ({"prompt": [1, 2, 3]}, "prompt", "no token ids"),
        ({"prompt": [[1, 2], [3]]}, "prompt", "no token ids"),
        ({"prompt": []}, "prompt", "length >= 1"),
        ({"prompt": 5}, "prompt", "Expected"),
        ({"prompt": ["a"] * 65, "n": 2}, "prompt", "128 answers at most"),
        ({"echo": True}, "echo", "Leave `echo` out"),
        ({"suffix": "x"}, "suffix", "Leave `suffix` out"),
        ({"best_of": 2}, "best_of", "must equal `n`"),
        ({"logprobs": 21}, "logprobs", "<= 20"),
        ({"messages": []}, "messages", "not a field"),
    ],
)
def test_what_cannot_be_asked_names_its_field(http: Any, change: dict[str, Any], param: str, words: str):
    answer = http.post("/v1/completions", json={"model": "echo", "prompt": "x", **change})
    error = answer.json()["error"]
    assert answer.status_code == 400 and error["param"] == param and words in error["message"], error


def test_without_a_length_each_answer_takes_what_fits_behind_its_own_prompt(start: Any):
    with start(window=200).http() as http:
        body = {"model": "echo:anna", "prompt": ["word " * 90, "word " * 190], "ignore_eos": True}
        answer = http.post("/v1/completions", json=body).json()
        assert [len(choice["text"].split()) for choice in answer["choices"]] == [108, 8]
        for change in ({"prompt": ["word", "word " * 198]}, {"max_tokens": 109}):
            refused = http.post("/v1/completions", json={**body, **change})
            assert (refused.status_code, refused.json()["error"]["code"]) == (400, "context_length_exceeded")
