"""Bodies of requests: what is stripped, refused and rewritten."""

from __future__ import annotations

from typing import Any

import pytest

from foreword.vllm_plugin import requests


@pytest.mark.parametrize(
    ("body", "clean"),
    [
        ({"kv_transfer_params": {"prefix": "x"}, "a": 1}, {"a": 1}),
        ({"kv_transfer_params": None, "a": 1}, {"a": 1}),
        ({"vllm_xargs": {"kv_transfer_params": "x", "b": 2}}, {"vllm_xargs": {"b": 2}}),
        (
            {"sampling_params": {"extra_args": {"kv_transfer_params": {"prefix": "x"}}, "n": 1}},
            {"sampling_params": {"extra_args": {}, "n": 1}},
        ),
        ({"chat_template_kwargs": {"foreword_continuation": True, "c": 3}}, {"chat_template_kwargs": {"c": 3}}),
    ],
)
def test_what_only_the_server_may_set_is_stripped(body, clean):
    before = repr(body)
    assert requests.without_transfer(body) == clean
    assert repr(body) == before


@pytest.mark.parametrize(
    "body",
    [{}, {"vllm_xargs": 5, "sampling_params": [], "chat_template_kwargs": None}, {"sampling_params": {"extra_args": "x"}, "messages": []}],
)
def test_other_bodies_are_left_alone(body):
    assert requests.without_transfer(body) is body


@pytest.mark.parametrize(
    ("path", "body", "named"),
    [
        ("/v1/chat/completions", {"prompt_logprobs": 0}, "prompt_logprobs"),
        ("/v1/completions", {"prompt_logprobs": 1}, "prompt_logprobs"),
        ("/v1/completions", {"echo": True, "logprobs": 0}, "echo"),
        ("/v1/chat/completions", {"echo": True}, "echo"),
        ("/v1/completions", {"use_beam_search": True}, "use_beam_search"),
        ("/v1/completions", {"prompt_embeds": "QUJD"}, "prompt_embeds"),
        ("/inference/v1/generate", {"sampling_params": {"prompt_logprobs": 2}}, "prompt_logprobs"),
        ("/inference/v1/generate", {"sampling_params": {"prompt_logprob_token_ids": [1]}}, "prompt_logprob_token_ids"),
    ],
)
def test_what_would_be_computed_without_the_prefix_is_refused(path, body, named):
    assert named in (requests.refusal(path, body) or "")


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/completions", {"echo": True}),
        ("/v1/completions", {"logprobs": 3}),
        ("/v1/chat/completions", {"logprobs": True, "top_logprobs": 2, "echo": False, "prompt_logprobs": None}),
        ("/inference/v1/generate", {"sampling_params": {"logprobs": 1}}),
        ("/inference/v1/generate", {"sampling_params": "?"}),
    ],
)
def test_what_goes_with_a_prefix(path, body):
    assert requests.refusal(path, body) is None


def rewritten(path: str, body: dict[str, Any], *, continues: bool) -> dict[str, Any]:
    return requests.rewritten(path, body, base="base", reference="support@v2", continues=continues)


def test_a_model_with_a_prefix_becomes_the_model_and_a_parameter():
    body = {"model": "base:support", "messages": [{"role": "user", "content": "Hi"}], "n": 2}
    new = rewritten("/v1/chat/completions", body, continues=False)
    assert new == body | {"model": "base", "kv_transfer_params": {"prefix": "support@v2"}}
    assert body["model"] == "base:support"


@pytest.mark.parametrize("path", [path for path, route in requests.ROUTES.items() if route.templated({"messages": []})])
def test_a_conversation_behind_its_start_is_rendered_as_continuation(path):
    new = rewritten(path, {"model": "base:support", "messages": [], "chat_template_kwargs": {"enable_thinking": False}}, continues=True)
    assert new["chat_template_kwargs"] == {"enable_thinking": False, "foreword_continuation": True}
    assert rewritten(path, {"messages": [], "chat_template_kwargs": None}, continues=True)["chat_template_kwargs"] == {
        "foreword_continuation": True
    }


def test_a_text_behind_a_conversations_start_gets_no_second_start():
    assert rewritten("/v1/completions", {"prompt": "x"}, continues=True)["add_special_tokens"] is False
    assert rewritten("/v1/completions", {"prompt": "x", "add_special_tokens": True}, continues=True)["add_special_tokens"] is True
    assert "add_special_tokens" not in rewritten("/v1/completions", {"prompt": "x"}, continues=False)
    assert rewritten("/tokenize", {"prompt": "x"}, continues=True)["add_special_tokens"] is False


def test_what_reaches_no_engine_gets_no_parameter():
    for path in ("/tokenize", "/detokenize", "/v1/messages/count_tokens"):
        assert "kv_transfer_params" not in rewritten(path, {"model": "base:support"}, continues=False)


@pytest.mark.parametrize(
    ("body", "count"),
    [
        ({"token_ids": [1, 2, 3]}, 3),
        ({"prompt": [1, 2]}, 2),
        ({"prompt": [[1], [1, 2, 3, 4]]}, 4),
        ({"prompt": "one two"}, None),
        ({"prompt": ["one", "two"]}, None),
        ({"prompt": []}, None),
        ({"messages": []}, None),
    ],
)
def test_token_ids_need_no_counting(body, count):
    assert requests.given_tokens(body) == count


@pytest.mark.parametrize(("answer", "count"), [({"count": 3}, 3), ({"input_tokens": 4}, 4), ({"error": {}}, 0), ([], 0), ("x", 0)])
def test_counts_are_read(answer, count):
    assert requests.counted(answer) == count


MESSAGES = [{"role": "user", "content": "Hi"}]


@pytest.mark.parametrize(
    ("path", "body", "expected"),
    [
        (
            "/v1/chat/completions",
            {"model": "base", "messages": MESSAGES, "tools": None, "max_tokens": 3, "chat_template_kwargs": {"a": 1}},
            [("/tokenize", {"model": "base", "messages": MESSAGES, "chat_template_kwargs": {"a": 1}})],
        ),
        (
            "/v1/chat/completions/batch",
            {"messages": [MESSAGES, []]},
            [("/tokenize", {"messages": MESSAGES}), ("/tokenize", {"messages": []})],
        ),
        ("/v1/chat/completions/batch", {"messages": 5}, None),
        (
            "/v1/completions",
            {"model": "base", "prompt": ["a", "b"], "add_special_tokens": False},
            [("/tokenize", {"model": "base", "add_special_tokens": False, "prompt": text}) for text in "ab"],
        ),
        ("/v1/completions", {"prompt": None}, None),
        ("/v1/responses", {"input": "Hi", "tools": [1]}, [("/tokenize", {"messages": MESSAGES})]),
        (
            "/v1/responses",
            {"input": MESSAGES, "instructions": "Be brief."},
            [("/tokenize", {"messages": [{"role": "system", "content": "Be brief."}, *MESSAGES]})],
        ),
        ("/v1/responses", {"input": "Hi", "previous_response_id": "r"}, None),
        ("/v1/responses", {"input": [{"type": "function_call_output"}]}, None),
        (
            "/v1/messages",
            {"model": "base", "messages": MESSAGES, "system": "x", "max_tokens": 5},
            [("/v1/messages/count_tokens", {"model": "base", "messages": MESSAGES, "system": "x"})],
        ),
    ],
)
def test_other_endpoints_count_the_same_tokens(path, body, expected):
    assert requests.ROUTES[path].counted_by(body) == expected


def test_only_what_may_be_long_is_counted():
    assert not requests.may_be_long(100, 1000)
    assert requests.may_be_long(600, 1000)
